"""What `cutaway` does for its user besides serving: batches over HTTP, checkpoints from a hub."""
