"""Bring a GPT-2 checkpoint from a Hugging Face hub into MODELS_DIR, where it appears only when it is whole.

A hub names the commit that a revision means and that commit's files; it states each file's size, and of large files the
SHA-256. What has come lies in MODELS_DIR/.fetching until everything is there and is what the hub stated, so that a
fetch that was stopped, however, goes on from the byte where it was.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import service.commands.folder as folders
from service.commands.hub import HUB, FetchError, Hub, Passing
from service.commands.plan import Plan, make_plan
from service.commands.receive import Bar, readable, receive

_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?")


class Stopped(Exception):
    """The user stopped it; the message is one line for the user."""


def fetch(
    repo: str, folder: Path, *, revision: str = "main", name: str | None = None, endpoint: str = HUB, token: str = ""
) -> str:
    """Bring the checkpoint `repo` into a folder of `folder`. Returns what is there now, as a line for the user.

    Raises FetchError and Stopped.
    """
    parts = repo.split("/")
    if len(parts) > 2 or not all(_is_name(part) for part in parts):
        raise FetchError(f"{repo!r} is no repository: one is called like openai-community/gpt2.")
    if name is not None and not _is_name(name):
        raise FetchError(f"{name!r} cannot be the name of a model's folder: letters, digits, '-', '_' and '.' can.")
    if not re.match(r"https?://[^/\s]", endpoint):
        raise FetchError(f"HF_ENDPOINT={endpoint!r}: an address like {HUB} is expected.")
    target = folder / (name or parts[-1])
    try:
        present = folders.present(target, repo, revision)
        if present:
            return f"{target} is complete already: {repo} at {present[:7]}"
        hub = Hub(endpoint.rstrip("/"), repo, revision, token)
        plan = make_plan(hub)
        with folders.staged(target) as staging:
            digests = _receive_all(hub, plan, staging, f"{repo} into {target}, {readable(plan.size)}")
            record = {"repo": repo, "revision": revision, "commit": plan.commit, "files": digests}
            folders.publish(plan, staging, target, record)
    except OSError as error:
        raise FetchError(f"{error.filename or folder}: {error.strerror or error}") from None
    except KeyboardInterrupt:
        raise Stopped("Stopped before any of the weights came.") from None
    return f"{target} is complete: {repo} at {plan.commit[:7]}, {readable(plan.size)}"


def _receive_all(hub: Hub, plan: Plan, staging: Path, label: str) -> dict[str, dict[str, Any]]:
    """Bring the weights, with a bar that shows how far they are. Returns each one's size and SHA-256."""
    parts = {plan.part(file): file for file in plan.weights}
    for stranger in set(os.listdir(staging)) - set(parts):  # what was left of another commit or model
        (staging / stranger).unlink()
    missing, free = plan.size - _held(staging), shutil.disk_usage(staging).free
    if missing > free:
        raise FetchError(f"{readable(missing)} are to come, and {staging.parent.parent} has room for {readable(free)}.")

    received = {}
    try:
        bar = Bar(plan.size, label)
        with bar.bar:
            for part, file in parts.items():
                with (staging / part).open("a+b") as sink:
                    sink.seek(0)
                    digest = receive(hub, plan.commit, file, sink, bar)
                    sink.flush()
                    os.fsync(sink.fileno())
                received[file.name] = {"size": file.size, "sha256": digest}
    except Passing as error:
        raise FetchError(f"{error} {_kept(plan, staging)}") from None
    except OSError as error:
        raise FetchError(f"{error.filename or staging}: {error.strerror or error}. {_kept(plan, staging)}") from None
    except KeyboardInterrupt:
        raise Stopped(f"Stopped. {_kept(plan, staging)}") from None
    return received


def _held(staging: Path) -> int:
    return sum(file.stat().st_size for file in staging.iterdir())


def _kept(plan: Plan, staging: Path) -> str:
    return f"{readable(_held(staging))} of {readable(plan.size)} are here; the same command goes on from there."


def _is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None
