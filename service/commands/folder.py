"""The folder of a downloaded model, and its staging folder."""

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

RECORD = ".fetched.json"  # in a model's folder: its origin, and the size and SHA-256 of each file
STAGING = ".fetching"  # in MODELS_DIR: incomplete downloads


def fetched_commit(target: Path, repo: str, revision: str) -> str | None:
    """Return the commit of the model in `target`; None if it is empty. Raises FetchError if it has other contents."""
    if not target.exists() or (target.is_dir() and not os.listdir(target)):
        return None
    try:
        record = json.loads((target / RECORD).read_bytes())
        commit, sizes = str(record["commit"]), {name: file["size"] for name, file in record["files"].items()}
        recorded_repo, recorded_revision = record["repo"], record["revision"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise _exists(target, "and was not created by `cutaway fetch`") from None
    if recorded_repo != repo or revision not in (recorded_revision, commit):
        raise _exists(target, f"with {recorded_repo} at {recorded_revision} ({commit[:7]})")
    for name, size in sizes.items():
        if not (target / name).is_file() or (target / name).stat().st_size != size:
            raise FetchError(f"{target} is damaged: {name} is missing or has the wrong size. Remove the folder first.")
    return commit


@contextmanager
def staging_folder(target: Path) -> Iterator[Path]:
    """Create and lock the folder for a download; remove it if it is empty in the end."""
    staging = target.parent / STAGING / target.name
    staging.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(staging, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FetchError(f"Another fetch is already writing to {target}.") from None
        yield staging
    finally:
        os.close(descriptor)
        for folder in (staging, staging.parent):
            with suppress(OSError):
                folder.rmdir()


def publish(plan: Plan, staging: Path, target: Path, record: dict[str, Any]) -> None:
    """Rename the files, then the folder. If `target` exists, the download stays in `staging` for another fetch."""
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
        raise _exists(target, "and was created during the download") from None


def _exists(target: Path, how: str) -> FetchError:
    return FetchError(f"{target} already exists {how}: use another --name, or remove it first.")
