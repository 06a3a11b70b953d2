"""API keys from the settings."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from pathlib import Path

from service.settings import Settings

_MIN_LENGTH = 16  # characters; shorter keys can be guessed
_ENTRY = re.compile(r"(?:(?P<name>[\w.-]{1,64}):)?(?P<key>[!-+\--9;-~]+)", re.ASCII)  # printable ASCII except , and :


class Keys:
    """The names of API keys, by the keys' digests; the keys themselves are not stored.

    Logs and rate limits use the names. An entry is name:key, or a key alone, whose name is then the beginning of its
    digest. Raises ValueError for an invalid entry, without quoting it.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self._names: list[tuple[bytes, str]] = []
        for number, entry in enumerate(entries, 1):
            match = _ENTRY.fullmatch(entry)
            if match is None or len(match["key"]) < _MIN_LENGTH:
                allowed = f"at least {_MIN_LENGTH} printable ASCII characters other than space, comma and colon"
                raise ValueError(f"API key {number} is invalid: it must be name:key or key, where key has {allowed}.")
            digest = _digest(match["key"])
            self._names.append((digest, match["name"] or digest.hex()[:12]))

    @classmethod
    def from_settings(cls, settings: Settings) -> Keys:
        """Read the keys in API_KEYS and in the file API_KEYS_FILE. Raises ValueError."""
        entries = [entry.strip() for entry in settings.api_keys.split(",")] if settings.api_keys.strip() else []
        if settings.api_keys_file:
            try:
                lines = Path(settings.api_keys_file).read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError):
                raise ValueError(f"API_KEYS_FILE={settings.api_keys_file!r} cannot be read.") from None
            listed = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
            if not listed:  # without keys, authentication would be off
                raise ValueError(f"API_KEYS_FILE={settings.api_keys_file!r} contains no key.")
            entries += listed
        return cls(entries)

    def __len__(self) -> int:
        return len(self._names)

    def name(self, key: str) -> str | None:
        """Return the name of a key, or None. Takes equally long for every key, to reveal nothing by its timing."""
        digest, result = _digest(key), None
        for known, name in self._names:
            if hmac.compare_digest(known, digest):
                result = name
        return result


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="replace")).digest()
