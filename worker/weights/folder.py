"""Reading a folder among others, and nothing outside of them: what is wrong there is said, and harms nobody else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson

_MAX_JSON = 64 << 20  # bytes of a JSON file that is read


class FileError(ValueError):
    """A file that is not what it should be: says what is wrong and what is expected."""


class Folder:
    """The folder `name` under `root`, links followed. Raises FileError where it is elsewhere."""

    def __init__(self, name: str, root: str) -> None:
        self._root = Path(os.path.realpath(root))
        self.path = self._root / name
        real = self._real(self.path, "the folder")
        if real is None or not real.is_dir():
            raise FileError("it is a link that leads to no folder")

    def find(self, name: str) -> Path | None:
        """A file of the folder; None where there is none. Raises FileError where it is no plain file in there."""
        path = self._real(self.path / name, name)
        if path is not None and not path.is_file():
            raise FileError(f"{name} is no plain file")
        return path

    def need(self, name: str) -> Path:
        """The same of a file that must be there."""
        path = self.find(name)
        if path is None:
            raise FileError(f"it has no {name}")
        return path

    def json(self, name: str) -> dict[str, Any]:
        """A file with a JSON object."""
        path = self.need(name)
        if path.stat().st_size > _MAX_JSON:
            raise FileError(f"{name} is larger than {_MAX_JSON:,} bytes")
        try:
            told = orjson.loads(path.read_bytes())
        except orjson.JSONDecodeError as error:
            raise FileError(f"{name} is not JSON: {error}") from None
        if not isinstance(told, dict):
            raise FileError(f"{name} is no JSON object")
        return told

    def _real(self, path: Path, called: str) -> Path | None:
        try:
            real = Path(os.path.realpath(path, strict=True))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError):  # a loop of links, a name that no file can have
            raise FileError(f"{called} cannot be found") from None
        if not real.is_relative_to(self._root):
            raise FileError(f"{called} is a link that leads out of the folder of models, and nothing is read there")
        return real
