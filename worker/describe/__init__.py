"""The grammar in which models are described; names no model."""
