"""`cutaway fetch`: download a checkpoint from a Hugging Face hub into MODELS_DIR.

The hub resolves a revision to a commit and lists that commit's files, with the size of each file and the SHA-256 of
large ones. Downloads stay in MODELS_DIR/.fetching until all are complete and match; an interrupted download resumes at
the byte where it ended.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import service.commands.folder as folders
from service.commands.hub import HUB, FetchError, Hub, TemporaryError
from service.commands.plan import Plan, make_plan
from service.commands.receive import ProgressBar, format_size, receive

_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?")


class Stopped(Exception):
    """The user interrupted the fetch; the message is one line for the user."""


def fetch(
    repo: str, folder: Path, *, revision: str = "main", name: str | None = None, endpoint: str = HUB, token: str = ""
) -> str:
    """Download the checkpoint `repo` into a folder of `folder`; return a summary line for the user.

    Raises FetchError or Stopped.
    """
    parts = repo.split("/")
    if len(parts) > 2 or not all(_is_name(part) for part in parts):
        raise FetchError(f"Invalid repository {repo!r}: use a name such as openai-community/gpt2.")
    if name is not None and not _is_name(name):
        raise FetchError(f"Invalid folder name {name!r}: use letters, digits and '_', with '-' and '.' only inside.")
    if not re.match(r"https?://[^/\s]", endpoint):
        raise FetchError(f"HF_ENDPOINT must be a URL such as {HUB}, not {endpoint!r}.")
    target = folder / (name or parts[-1])
    try:
        commit = folders.fetched_commit(target, repo, revision)
        if commit:
            return f"{target} is already complete: {repo} at {commit[:7]}"
        hub = Hub(endpoint.rstrip("/"), repo, revision, token)
        plan = make_plan(hub)
        with folders.staging_folder(target) as staging:
            digests = _download_weights(hub, plan, staging, f"{repo} into {target}, {format_size(plan.size)}")
            record = {"repo": repo, "revision": revision, "commit": plan.commit, "files": digests}
            folders.publish(plan, staging, target, record)
    except OSError as error:
        raise FetchError(f"{error.filename or folder}: {error.strerror or error}") from None
    except KeyboardInterrupt:
        raise Stopped("Stopped before the download of the weights began.") from None
    return f"{target} is complete: {repo} at {plan.commit[:7]}, {format_size(plan.size)}"


def _download_weights(hub: Hub, plan: Plan, staging: Path, label: str) -> dict[str, dict[str, Any]]:
    """Download the weights with a progress bar; return the size and SHA-256 of each file."""
    parts = {plan.part(file): file for file in plan.weights}
    for stale in set(os.listdir(staging)) - set(parts):  # from another commit or model
        (staging / stale).unlink()
    missing, free = plan.size - _downloaded(staging), shutil.disk_usage(staging).free
    if missing > free:
        room = f"{staging.parent.parent} has {format_size(free)} free"
        raise FetchError(f"The download needs {format_size(missing)}, but {room}.")

    digests = {}
    try:
        bar = ProgressBar(plan.size, label)
        with bar.bar:
            for part, file in parts.items():
                with (staging / part).open("a+b") as sink:
                    sink.seek(0)
                    digest = receive(hub, plan.commit, file, sink, bar)
                    sink.flush()
                    os.fsync(sink.fileno())
                digests[file.name] = {"size": file.size, "sha256": digest}
    except TemporaryError as error:
        raise FetchError(f"{error} {_progress(plan, staging)}") from None
    except OSError as error:
        raise FetchError(
            f"{error.filename or staging}: {error.strerror or error}. {_progress(plan, staging)}"
        ) from None
    except KeyboardInterrupt:
        raise Stopped(f"Stopped. {_progress(plan, staging)}") from None
    return digests


def _downloaded(staging: Path) -> int:
    """Return how many bytes are downloaded."""
    return sum(file.stat().st_size for file in staging.iterdir())


def _progress(plan: Plan, staging: Path) -> str:
    done, size = format_size(_downloaded(staging)), format_size(plan.size)
    return f"{done} of {size} are downloaded; run the same command again to resume."


def _is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None
