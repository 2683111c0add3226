"""What a run is, as data: its schema and digest, presets and variants, and who set which value."""
