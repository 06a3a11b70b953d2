"""The operations of a forward pass: NumPy, the reference, and compiled kernels."""
