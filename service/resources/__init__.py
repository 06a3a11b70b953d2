"""A module a resource: its routes, and the schemas that only they use."""
