"""Engines: the operations of a forward pass, in NumPy and compiled."""
