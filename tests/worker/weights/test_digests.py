"""Digests: SHA-256, computed once for each version of a file."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import worker.weights.digests as digests
from worker.weights.digests import ChangedError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "model.safetensors").write_bytes(b"weights")
    return tmp_path / "folder" / "model.safetensors"


pytestmark = pytest.mark.usefixtures("temporary")


def digest(path: Path) -> str:
    as_of = digests.stamp(path)
    assert as_of is not None
    return digests.sha256(path, as_of)


def forget() -> None:
    """Clear the cache in memory, as in a new process."""
    digests._known.clear()


def test_it_is_the_sha_256_of_the_file(file: Path) -> None:
    assert digest(file) == hashlib.sha256(b"weights").hexdigest()


def test_a_file_is_read_once_by_any_number_of_processes(file: Path, reads: list[Path]) -> None:
    first = digest(file)
    assert digest(file) == first
    forget()
    assert digest(file) == first
    assert reads == [file]


def test_concurrent_threads_read_a_file_once(file: Path, reads: list[Path]) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(digest, [file] * 40))) == 1
    assert reads == [file]


@pytest.mark.parametrize("kept_time", [False, True], ids=["", "its time set back"])
@pytest.mark.parametrize("replaced", [False, True], ids=["written over", "replaced"])
def test_a_changed_file_of_the_same_size_is_read_again(file: Path, replaced: bool, kept_time: bool) -> None:
    first, times = digest(file), file.stat()
    if replaced:
        file.with_name("new").write_bytes(b"WEIGHTS")
        file.with_name("new").replace(file)
    else:
        file.write_bytes(b"WEIGHTS")
    if kept_time:
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert digest(file) != first
    assert digest(file) == hashlib.sha256(b"WEIGHTS").hexdigest()


def test_a_file_changed_since_its_stamp_is_rejected(file: Path) -> None:
    as_of = digests.stamp(file)
    assert as_of is not None
    file.write_bytes(b"other weights")
    with pytest.raises(ChangedError, match=r"model\.safetensors changed while it was read"):
        digests.sha256(file, as_of)


def test_a_record_copied_from_another_file_is_ignored(file: Path, reads: list[Path]) -> None:
    first = digest(file)
    other = file.parent.parent / "other"
    other.mkdir()
    for path in file.parent.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    (other / file.name).write_bytes(b"WEIGHTS")
    assert digest(other / file.name) != first
    assert len(reads) == 2


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"stamp": 1, "sha256": "0"}'])
def test_an_invalid_record_is_replaced(file: Path, reads: list[Path], content: bytes) -> None:
    record = file.with_name(f".{file.name}.sha256.json")
    record.write_bytes(content)
    first = digest(file)
    forget()
    assert (digest(file), reads) == (first, [file])


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    """Simulate a folder that is not writable, as every folder is to root."""
    places = digests._record_files
    monkeypatch.setattr(digests, "_record_files", lambda path: (p for p in places(path) if p.parent != file.parent))


@pytest.mark.usefixtures("closed")
def test_without_write_access_the_record_goes_to_a_private_folder(
    file: Path, reads: list[Path], temporary: Path
) -> None:
    digest(file)
    forget()
    digest(file)
    assert reads == [file]
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    [own] = temporary.iterdir()
    assert own.stat().st_mode & 0o777 == 0o700


@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize("planted", ["open to all", "a link", "a file"])
def test_a_temporary_folder_writable_by_others_is_not_used(
    file: Path, reads: list[Path], temporary: Path, planted: str
) -> None:
    own = temporary / f"cutaway-{os.getuid()}"
    if planted == "a file":
        own.touch()
    elif planted == "a link":
        (temporary / "elsewhere").mkdir(mode=0o700)
        own.symlink_to(temporary / "elsewhere")
    else:
        own.mkdir()
        own.chmod(0o777)
    digest(file)
    forget()
    digest(file)
    assert reads == [file, file]
