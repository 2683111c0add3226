"""Where runs run: the engine that a driver of many runs submits them to."""
