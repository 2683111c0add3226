"""What `init` writes: read as text, and never imported from here."""
