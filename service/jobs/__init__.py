"""Submission of requests as jobs: limits, admission, status, batches."""
