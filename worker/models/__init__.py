"""Models in requests: presets, checkpoints and vocabularies."""
