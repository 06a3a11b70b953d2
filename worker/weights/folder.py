"""Read the files of a folder, and nothing outside its root."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson

LFS_POINTER = b"version https://git-lfs.github.com/spec/"  # the first bytes of a file that Git LFS has not fetched
_MAX_SHOWN = 100  # characters of a file's content in a message


class FileError(ValueError):
    """A missing or invalid file."""


def shortened(text: str) -> str:
    """Return text from a file for a message, truncated if it is long."""
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 1]}…"


class Folder:
    """The folder `name` under `root`, following links. Raises FileError if it is outside `root`."""

    def __init__(self, name: str, root: str) -> None:
        self._root = Path(os.path.realpath(root))
        self.path = self._root / name
        real = self._real(self.path, "the folder")
        if real is None or not real.is_dir():
            raise FileError("it is a link, but not to a folder")

    def find(self, name: str) -> Path | None:
        """Return the path of a file, or None if it does not exist. Raises FileError if it is not a regular file."""
        path = self._real(self.path / name, name)
        if path is not None and not path.is_file():
            raise FileError(f"{shortened(name)} is not a regular file")
        return path

    def require(self, name: str) -> Path:
        """Return the path of a file. Raises FileError also if it does not exist."""
        path = self.find(name)
        if path is None:
            raise FileError(f"it has no {shortened(name)}")
        return path

    def json(self, name: str, max_bytes: int) -> dict[str, Any]:
        """Return the content of a file with a JSON object. Raises FileError, also if the file is larger."""
        with self.require(name).open("rb") as file:
            text = file.read(max_bytes + 1)
        if len(text) > max_bytes:
            raise FileError(f"{name} is larger than {max_bytes:,} bytes")
        if text.startswith(LFS_POINTER):
            raise FileError(f"{name} is a Git LFS pointer, not the file: run git lfs pull")
        try:
            content = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise FileError(f"{name} is not JSON: {error}") from None
        if not isinstance(content, dict):
            raise FileError(f"{name} is not a JSON object")
        return content

    def _real(self, path: Path, label: str) -> Path | None:
        try:
            real = Path(os.path.realpath(path, strict=True))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError):  # a loop of links, a name that no file can have
            raise FileError(f"{shortened(label)} cannot be found") from None
        if not real.is_relative_to(self._root):
            raise FileError(f"{shortened(label)} is a link out of the models folder, and is not followed")
        return real
