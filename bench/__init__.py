"""Measurements, each beside a peer or a limit in the same run. They print; they assert nothing about time."""
