"""The networks: self-attention, normalised layers, and the DCGAN-like SAGAN."""
