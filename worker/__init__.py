"""The work: what a GPT is, its inference and its picture. Knows no HTTP."""
