"""Benchmarks, each compared with a peer or a limit in the same run.

They print their results; they assert nothing about time.
"""
