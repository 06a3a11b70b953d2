"""The face: HTTP in, bytes out. Knows no arithmetic."""
