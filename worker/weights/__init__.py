"""Weights: synthetic, or from files, with digests."""
