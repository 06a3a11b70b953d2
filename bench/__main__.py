"""The command `python -m bench`: runs all benchmarks, or those that are named."""

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

BENCHMARKS = {
    "engine": bench.engine.run,
    "layout": bench.layout.run,
    "latency": bench.latency.run,
    "http": bench.http.run,
    "batches": bench.batches.run,
    "tensors": bench.tensors.run,
    "load": bench.load.run,
}
BY_NAME_ONLY = {"soak": bench.soak.run}  # takes minutes


def main(names: list[str]) -> None:
    """Run the benchmarks of these names, by default all but those that take minutes."""
    known = BENCHMARKS | BY_NAME_ONLY
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"unknown benchmark {unknown[0]!r}: choose from {', '.join(known)}")
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before the run")
    for name in names or BENCHMARKS:
        print()
        known[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
