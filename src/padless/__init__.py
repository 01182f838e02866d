"""Variable-length sequences in PyTorch at the cost of their real rows."""
