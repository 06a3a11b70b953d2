"""What a "model" in a request means: presets, checkpoints, vocabularies."""
