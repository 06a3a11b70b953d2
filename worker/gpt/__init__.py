"""A GPT: its configuration, its one description, its weights and its forward pass."""
