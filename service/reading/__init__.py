"""From a stored tensor to bytes: slices, level of detail, representations."""
