"""Requests, results, events and counters in Redis; large results in an object store."""
