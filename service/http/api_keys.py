"""The keys that let callers in."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from pathlib import Path

from service.settings import Settings

_LEAST = 16  # characters: what is shorter can be guessed
_ENTRY = re.compile(r"(?:(?P<name>[\w.-]{1,64}):)?(?P<key>[!-+\--9;-~]+)", re.ASCII)  # printable, but for , and :


class Keys:
    """Keys by their digests, each with a name to be told and counted by. The keys themselves are not kept.

    An entry is name:key, or a key, whose name is then the beginning of its digest. Raises ValueError for one that
    cannot be, without telling it.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self._names: list[tuple[bytes, str]] = []
        for number, entry in enumerate(entries, 1):
            found = _ENTRY.fullmatch(entry)
            if found is None or len(found["key"]) < _LEAST:
                told = f"name:key or key, of {_LEAST} or more letters, digits and signs other than comma and colon"
                raise ValueError(f"API key {number} is not allowed: an entry is {told}.")
            digest = _digest(found["key"])
            self._names.append((digest, found["name"] or digest.hex()[:12]))

    @classmethod
    def of(cls, settings: Settings) -> Keys:
        """Those of API_KEYS and of the file that API_KEYS_FILE names. Raises ValueError."""
        entries = [entry.strip() for entry in settings.api_keys.split(",")] if settings.api_keys.strip() else []
        if settings.api_keys_file:
            try:
                lines = Path(settings.api_keys_file).read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError):
                raise ValueError(f"API_KEYS_FILE={settings.api_keys_file!r} cannot be read.") from None
            listed = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
            if not listed:  # nobody who names a file means everybody to be let in
                raise ValueError(f"API_KEYS_FILE={settings.api_keys_file!r} has no key in it.")
            entries += listed
        return cls(entries)

    def __len__(self) -> int:
        return len(self._names)

    def name(self, key: str) -> str | None:
        """The name of a key, or None. It takes as long for each, known or not."""
        digest, found = _digest(key), None
        for known, name in self._names:
            if hmac.compare_digest(known, digest):
                found = name
        return found


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="replace")).digest()
