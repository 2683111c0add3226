"""One run from its configuration to its record, and what can be made of it afterwards."""
