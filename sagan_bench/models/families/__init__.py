"""The families of networks: one class a file, with its G and D beside it."""
