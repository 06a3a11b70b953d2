"""HTTP: authentication, content negotiation, caching, problems, event streams."""
