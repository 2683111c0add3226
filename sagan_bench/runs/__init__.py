"""What a run leaves behind: its record, its directory and files, and runs as a table."""
