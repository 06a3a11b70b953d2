"""The processes: Redis, workers and the API's server."""
