"""The samplers of a search, one a module; `Sampler` says what one does."""
