"""Archived results, in a folder and in a bucket."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pytest
import safetensors.numpy

from tests.places import KEYS, SECRET, Relay, request, running_bucket_server
from worker.store.archive import Archive, ArchivedBytes, ArchiveWriter
from worker.store.safetensors import Entries
from worker.store.stored_bytes import Missing, Unavailable, read

MIB = 1 << 20
VALUES = np.random.default_rng(0).standard_normal((5, 1 << 20), dtype=np.float32)
ENTRIES: Entries = {"values": ("<f4", VALUES.shape), "more": ("|u1", (123,))}
CONTENT = VALUES.tobytes() + bytes(range(123))
SIZE = len(CONTENT)

#: Writes 120 MB and prints the growth of its memory in MB; with "die" kills itself midway.
WRITE = """
import os, resource, signal, sys
from worker.store.archive import Archive, ArchiveWriter
writer = ArchiveWriter(Archive(sys.argv[1], 5), "killed", {"a": ("|u1", (120 << 20,))}, {})
with writer:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for n in range(120):
        writer.append(memoryview(bytes(1 << 20)))
        if n == 30 and sys.argv[2:] == ["die"]:
            os.kill(os.getpid(), signal.SIGKILL)
    writer.finish({})
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


@dataclass
class Place:
    """An archive, and a count of the bytes read from it."""

    archive: Archive
    relay: Relay | None

    def stored(self, id: str = "a") -> ArchivedBytes:
        return ArchivedBytes(self.archive, id, self.archive.manifest(id)["archived"], lambda: None)

    def names(self) -> set[str]:
        """Return the names of all listed objects."""
        return {entry["path"] for page in self.archive.store.list() for entry in page}

    def bytes_read(self) -> int:
        if self.relay is not None:
            return self.relay.sent
        counters = Path("/proc/self/io").read_text(encoding="ascii")
        return int(counters.partition("rchar: ")[2].partition("\n")[0])


@pytest.fixture(scope="module")
def bucket_server() -> Iterator[int]:
    with running_bucket_server() as port:
        yield port


@pytest.fixture(params=["folder", "bucket"])
def place(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """An empty archive: a folder, then a bucket."""
    if request.param == "folder":
        yield Place(Archive(str(tmp_path / "archive"), 1), None)
        return
    relay = Relay(request.getfixturevalue("bucket_server"))
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{relay.port}", "AWS_ALLOW_HTTP": "true"}.items():
        monkeypatch.setenv(name, value)
    yield Place(Archive(f"s3://bucket/{tmp_path.name}", 1), relay)
    relay.close()


def write(place: Place, id: str = "a", **manifest: Any) -> None:
    with ArchiveWriter(place.archive, id, ENTRIES, {"id": id}) as writer:
        for start in range(0, SIZE, 3_000_001):
            writer.append(memoryview(CONTENT)[start : start + 3_000_001])
        writer.finish(manifest)


# -------------------------------------------------------------------------------------------------------- whole


def test_stream_receive_and_gather_read_the_same_bytes(place: Place) -> None:
    write(place)
    stored = place.stored()
    for start, stop in ((0, SIZE), (0, 0), (0, 1), (SIZE - 1, SIZE), (7 * MIB + 1, 17 * MIB + 5), (MIB, MIB)):
        assert read(stored, start, stop) == CONTENT[start:stop]
    starts = [5, 3 * MIB, 0, 19 * MIB, 7, 8, 9]
    wanted = [(start, memoryview(bytearray(1000 + start % 77))) for start in starts]
    found = [bytes(memory) for memory in stored.receive(iter(wanted))]
    assert found == [CONTENT[start : start + len(memory)] for start, memory in wanted]
    assert stored.gather(np.array(starts), 9) == b"".join(CONTENT[start : start + 9] for start in starts)


def test_manifest_has_its_fields_and_the_place_of_the_bytes(place: Place) -> None:
    write(place, kind="trace", output="Ä")
    found = place.archive.manifest("a")
    assert found == {"kind": "trace", "output": "Ä", "size": SIZE, "archived": found["archived"]}


def test_object_is_a_valid_safetensors_file(place: Place) -> None:
    write(place)
    content = bytes(obstore.get(place.archive.store, "a.safetensors").bytes())
    read_back = safetensors.numpy.load(content)
    np.testing.assert_array_equal(read_back["values"], VALUES)
    assert read_back["more"].tolist() == [*range(123)]
    assert b'"__metadata__":{"id":"a"}' in content[:200]


def test_only_the_requested_range_is_read(place: Place) -> None:
    write(place)
    stored = place.stored()
    before = place.bytes_read()
    assert read(stored, 10 * MIB, 10 * MIB + 5000) == CONTENT[10 * MIB : 10 * MIB + 5000]
    next(stored.receive([(3 * MIB, memoryview(bytearray(5000)))]))
    assert len(stored.gather(np.array([MIB, 9 * MIB]), 2000)) == 4000
    assert 14_000 <= place.bytes_read() - before < 14_000 + 8_000  # plus HTTP headers


def test_deleting_a_result_leaves_others(place: Place) -> None:
    for id in ("a", "b"):
        write(place, id, of=id)
    place.archive.delete("a")
    assert place.archive.manifest("b")["of"] == "b"
    assert place.names() == {"b.json", "b.safetensors"}


def test_memory_can_be_reused_after_append(place: Place) -> None:
    window = bytearray(3)
    with ArchiveWriter(place.archive, "a", {"a": ("|u1", (9,))}, {}) as writer:
        for n in range(3):
            window[:] = bytes([n, n, n])
            writer.append(memoryview(window))
        writer.finish({})
    assert read(place.stored(), 0, 9) == bytes([0, 0, 0, 1, 1, 1, 2, 2, 2])


# ----------------------------------------------------------------------------------------------- incomplete results


def test_unknown_result_is_missing_and_can_be_deleted(place: Place) -> None:
    place.archive.delete("a")
    with pytest.raises(Missing):
        place.archive.manifest("a")


def test_unfinished_result_is_missing(place: Place) -> None:
    with ArchiveWriter(place.archive, "a", ENTRIES, {}) as writer:
        writer.append(memoryview(CONTENT))
        with pytest.raises(Missing):
            place.archive.manifest("a")
        assert place.names() == set()
        writer.finish({})
    assert place.archive.manifest("a")["size"] == SIZE


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_exception_while_writing_leaves_nothing(place: Place, error: type[BaseException]) -> None:
    def make() -> None:
        with ArchiveWriter(place.archive, "a", ENTRIES, {}) as writer:
            writer.append(memoryview(CONTENT))
            raise error

    with pytest.raises(error):
        make()
    assert place.names() == set()
    assert nothing_is_hidden(place)


def test_result_with_missing_bytes_is_refused(place: Place) -> None:
    def make() -> None:
        with ArchiveWriter(place.archive, "a", ENTRIES, {}) as writer:
            writer.append(memoryview(CONTENT)[:-5])
            writer.finish({})

    with pytest.raises(ValueError, match="5 bytes of the result were not written"):
        make()
    assert place.names() == set()


def test_result_that_is_not_finished_is_discarded(place: Place) -> None:
    with ArchiveWriter(place.archive, "a", ENTRIES, {}) as writer:
        writer.append(memoryview(CONTENT))  # and was cancelled
    assert place.names() == set()
    assert nothing_is_hidden(place)


def test_killed_writer_leaves_no_result(place: Place) -> None:
    ran = subprocess.run([sys.executable, "-c", WRITE, place.archive.url, "die"], check=False)
    assert ran.returncode == -signal.SIGKILL
    with pytest.raises(Missing):
        place.archive.manifest("killed")
    assert place.names() == set()
    place.archive.clean_up("killed")
    if place.relay is None:  # a bucket needs a lifecycle rule that aborts abandoned uploads
        assert nothing_is_hidden(place)


def test_writing_takes_bounded_memory(place: Place) -> None:
    ran = subprocess.run([sys.executable, "-c", WRITE, place.archive.url], capture_output=True, text=True, check=True)
    assert place.archive.manifest("killed")["size"] == 120 * MIB
    assert int(ran.stdout) < 60


def nothing_is_hidden(place: Place) -> bool:
    """Return whether a folder has no files and a bucket has no unfinished uploads."""
    if place.archive.folder is not None:
        return [*place.archive.folder.iterdir()] == []
    assert place.relay is not None
    return place.archive.url.rpartition("/")[2] not in request(place.relay.to, "GET", "bucket?uploads")


# ------------------------------------------------------------------------------ lost objects, unavailable stores


def test_result_without_its_object_is_missing_and_reported(place: Place) -> None:
    write(place)
    reported: list[str] = []
    stored = ArchivedBytes(place.archive, "a", place.stored().head, lambda: reported.append("a"))
    obstore.delete(place.archive.store, "a.safetensors")
    with pytest.raises(Missing):
        read(stored, 0, 5)
    assert reported == ["a"]


def test_unavailable_store_raises_without_credentials(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    write(place)
    stored = place.stored()
    if place.relay is not None:
        place.relay.close()
    else:
        assert place.archive.folder
        moved = place.archive.folder.rename(place.archive.folder.with_name("elsewhere"))
        place.archive.folder.write_text("no folder")
        assert moved.exists()
    with caplog.at_level(logging.DEBUG):
        for use in (lambda: place.archive.manifest("a"), lambda: read(stored, 0, 9), lambda: write(place, "b")):
            with pytest.raises(Unavailable) as raised:
                use()
            assert raised.value.__cause__ is None
            assert SECRET not in str(raised.value)
    assert "the trace store: " in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize("place", ["bucket"], indirect=True)
def test_refusal_by_the_store_is_logged_without_the_response_body(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    write(place)
    with pytest.raises(Unavailable):
        ArchivedBytes(place.archive, "a", 10 * SIZE, lambda: None).gather(np.array([0]), 9)  # past the end
    assert "416 Range Not Satisfiable" in caplog.text
    assert "<Error>" not in caplog.text


@pytest.mark.parametrize("url", ["/some/folder", "folder", "file:///some/folder"])
def test_folder_is_a_path_or_a_file_url(url: str) -> None:
    assert Archive(url, 1).folder == Path(url.removeprefix("file://")).absolute()
    assert Archive("s3://bucket/prefix", 1).folder is None
