"""sagan_bench: does self-attention help this GAN, where, and how sure are we?"""

__version__ = "0.1.0"
