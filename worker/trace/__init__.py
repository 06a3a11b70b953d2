"""One inference: its memory, generation, sampling, the logit lens."""
