"""Layouts: block positions, and their output formats."""
