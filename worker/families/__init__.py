"""Models, one file each: configuration, description, forward pass, names of weights."""
