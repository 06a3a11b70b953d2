"""Queues, workers and jobs: the only package that imports RQ."""
