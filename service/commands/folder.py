"""The folder of a model, as a fetch leaves it: it appears whole, and what is not whole yet lies beside it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from service.commands.hub import FetchError
from service.commands.plan import Plan

RECORD = ".fetched.json"  # in a model's folder: where it came from, and each file's size and SHA-256
STAGING = ".fetching"  # in MODELS_DIR: what is not whole yet


def present(target: Path, repo: str, revision: str) -> str | None:
    """The commit of a model that was fetched before; None where nothing is. Raises FetchError where another one is."""
    if not target.exists() or (target.is_dir() and not os.listdir(target)):
        return None
    try:
        record = json.loads((target / RECORD).read_bytes())
        commit, sizes = str(record["commit"]), {name: file["size"] for name, file in record["files"].items()}
        holds, of = record["repo"], record["revision"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise _taken(target, "by something that was not fetched") from None
    if holds != repo or revision not in (of, commit):
        raise _taken(target, f"by {holds} at {of} ({commit[:7]})")
    for name, size in sizes.items():
        if not (target / name).is_file() or (target / name).stat().st_size != size:
            raise FetchError(f"{target} is not whole any more: {name} is missing or cut. Remove it first.")
    return commit


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """The folder for what comes, which is this process' alone; removed where nothing came."""
    staging = target.parent / STAGING / target.name
    staging.mkdir(parents=True, exist_ok=True)
    held = os.open(staging, os.O_RDONLY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FetchError(f"Another fetch into {target} is under way.") from None
        yield staging
    finally:
        os.close(held)
        for folder in (staging, staging.parent):
            with suppress(OSError):
                folder.rmdir()


def publish(plan: Plan, staging: Path, target: Path, record: dict[str, Any]) -> None:
    """Give every file its name, and the folder at last; where that is taken, what came stays for another fetch."""
    for file in plan.weights:
        (staging / plan.part(file)).rename(staging / file.name)
    for name, content in (plan.small | {RECORD: json.dumps(record, indent=2).encode()}).items():
        with (staging / name).open("wb") as output:
            output.write(content)
            output.flush()
            os.fsync(output.fileno())
    try:
        staging.rename(target)
    except OSError as error:
        for file in plan.weights:
            (staging / file.name).rename(staging / plan.part(file))
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        raise _taken(target, "by something that came while this was fetched") from None


def _taken(target: Path, by: str) -> FetchError:
    return FetchError(f"{target} is taken {by}: give another --name, or remove it first.")
