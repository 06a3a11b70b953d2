"""Where numbers come from: synthetic weights, files and their digests."""
