"""Traces: memory, generation, capture, and the logit lens."""
