"""Run every measurement: `make bench`, or `python -m bench layout` for one of them."""

from __future__ import annotations

import os
import platform
import sys

import bench.batches
import bench.engine
import bench.http
import bench.latency
import bench.layout
import bench.load
import bench.soak
import bench.tensors

MEASUREMENTS = {
    "engine": bench.engine.run,
    "layout": bench.layout.run,
    "latency": bench.latency.run,
    "http": bench.http.run,
    "batches": bench.batches.run,
    "tensors": bench.tensors.run,
    "load": bench.load.run,
}
APART = {"soak": bench.soak.run}  # takes minutes, and is run by its name


def main(names: list[str]) -> None:
    """Run the measurements of these names, all by default."""
    known = MEASUREMENTS | APART
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"{unknown[0]!r} is no measurement: {', '.join(known)} are")
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before the run")
    for name in names or MEASUREMENTS:
        print()
        known[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
