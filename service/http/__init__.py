"""What every answer has in common: representations, validators, problems, event streams."""
