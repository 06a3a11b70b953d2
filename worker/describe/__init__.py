"""The vocabulary for describing any model's architecture."""
