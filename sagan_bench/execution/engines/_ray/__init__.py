"""What the engine `ray` is made of: how it is set up, its words with Ray, its files, its actors."""
