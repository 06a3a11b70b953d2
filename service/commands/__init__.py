"""Subcommands that are HTTP clients: `cutaway batch` and `cutaway fetch`."""
