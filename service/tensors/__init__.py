"""Stored tensors as values and bytes: slices, levels of detail, encodings."""
