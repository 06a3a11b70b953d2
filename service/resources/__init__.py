"""Resources, one per module: routes and their own schemas."""
