"""Explanations of how one cell was computed."""
