"""The work: what a model is, its inference and its picture. Knows no HTTP."""
