"""Many runs for one question: studies (a grid) and tunings (a search), and their drivers."""
