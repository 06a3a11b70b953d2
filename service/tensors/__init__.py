"""Read stored tensors: slices, levels of detail, encodings."""
