"""An archived result is there whole or not at all, in a folder as in a bucket, and only what is asked for is read."""

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

from tests.places import KEYS, SECRET, Relay, ask, running_bucket_server
from worker.store.archive import Archive, ArchivedBytes, ArchiveWriter
from worker.store.safetensors import Entries
from worker.store.stored_bytes import Missing, Unavailable, read

MIB = 1 << 20
VALUES = np.random.default_rng(0).standard_normal((5, 1 << 20), dtype=np.float32)
ENTRIES: Entries = {"values": ("<f4", VALUES.shape), "more": ("|u1", (123,))}
CONTENT = VALUES.tobytes() + bytes(range(123))
SIZE = len(CONTENT)

#: Begins to write a result, and is killed; or writes 120 MB and tells by how much its memory grew, in MB.
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
    """An archive, and a way to see how much is read from it."""

    archive: Archive
    relay: Relay | None

    def run(self, id: str = "a") -> ArchivedBytes:
        return ArchivedBytes(self.archive, id, self.archive.manifest(id)["archived"], lambda: None)

    def names(self) -> set[str]:
        """All that is to be seen in it."""
        return {entry["path"] for page in self.archive.store.list() for entry in page}

    def bytes_read(self) -> int:
        if self.relay is not None:
            return self.relay.said
        told = Path("/proc/self/io").read_text(encoding="ascii")
        return int(told.partition("rchar: ")[2].partition("\n")[0])


@pytest.fixture(scope="module")
def bucket_server() -> Iterator[int]:
    with running_bucket_server() as port:
        yield port


@pytest.fixture(params=["folder", "bucket"])
def place(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """An empty archive."""
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


def test_any_range_is_read_back_in_every_way(place: Place) -> None:
    write(place)
    run = place.run()
    for start, stop in ((0, SIZE), (0, 0), (0, 1), (SIZE - 1, SIZE), (7 * MIB + 1, 17 * MIB + 5), (MIB, MIB)):
        assert read(run, start, stop) == CONTENT[start:stop]
    starts = [5, 3 * MIB, 0, 19 * MIB, 7, 8, 9]
    wanted = [(start, memoryview(bytearray(1000 + start % 77))) for start in starts]
    found = [bytes(memory) for memory in run.receive(iter(wanted))]
    assert found == [CONTENT[start : start + len(memory)] for start, memory in wanted]
    assert run.gather(np.array(starts), 9) == b"".join(CONTENT[start : start + 9] for start in starts)


def test_the_manifest_is_what_was_said_and_where_the_bytes_are(place: Place) -> None:
    write(place, kind="trace", output="Ä")
    found = place.archive.manifest("a")
    assert found == {"kind": "trace", "output": "Ä", "size": SIZE, "archived": found["archived"]}


def test_the_object_is_a_safetensors_file_of_the_arrays(place: Place) -> None:
    write(place)
    content = bytes(obstore.get(place.archive.store, "a.safetensors").bytes())
    read_back = safetensors.numpy.load(content)
    np.testing.assert_array_equal(read_back["values"], VALUES)
    assert read_back["more"].tolist() == [*range(123)]
    assert b'"__metadata__":{"id":"a"}' in content[:200]


def test_only_the_range_that_is_asked_for_is_read(place: Place) -> None:
    write(place)
    run = place.run()
    before = place.bytes_read()
    assert read(run, 10 * MIB, 10 * MIB + 5000) == CONTENT[10 * MIB : 10 * MIB + 5000]
    next(run.receive([(3 * MIB, memoryview(bytearray(5000)))]))
    assert len(run.gather(np.array([MIB, 9 * MIB]), 2000)) == 4000
    assert 14_000 <= place.bytes_read() - before < 14_000 + 8_000  # and what HTTP says of it


def test_results_do_not_touch_each_other(place: Place) -> None:
    for id in ("a", "b"):
        write(place, id, of=id)
    place.archive.forget("a")
    assert place.archive.manifest("b")["of"] == "b"
    assert place.names() == {"b.json", "b.safetensors"}


def test_memory_may_be_used_again_when_it_was_appended(place: Place) -> None:
    window = bytearray(3)
    with ArchiveWriter(place.archive, "a", {"a": ("|u1", (9,))}, {}) as writer:
        for n in range(3):
            window[:] = bytes([n, n, n])
            writer.append(memoryview(window))
        writer.finish({})
    assert read(place.run(), 0, 9) == bytes([0, 0, 0, 1, 1, 1, 2, 2, 2])


# ----------------------------------------------------------------------------------------------- nothing by half


def test_an_unknown_result_is_missing_and_forgetting_it_does_nothing(place: Place) -> None:
    place.archive.forget("a")
    with pytest.raises(Missing):
        place.archive.manifest("a")


def test_there_is_no_result_before_it_is_finished(place: Place) -> None:
    with ArchiveWriter(place.archive, "a", ENTRIES, {}) as writer:
        writer.append(memoryview(CONTENT))
        with pytest.raises(Missing):
            place.archive.manifest("a")
        assert place.names() == set()
        writer.finish({})
    assert place.archive.manifest("a")["size"] == SIZE


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_while_it_is_made_leaves_nothing(place: Place, error: type[BaseException]) -> None:
    def make() -> None:
        with ArchiveWriter(place.archive, "a", ENTRIES, {}) as writer:
            writer.append(memoryview(CONTENT))
            raise error

    with pytest.raises(error):
        make()
    assert place.names() == set()
    assert nothing_is_hidden(place)


def test_less_than_was_announced_is_no_result(place: Place) -> None:
    def make() -> None:
        with ArchiveWriter(place.archive, "a", ENTRIES, {}) as writer:
            writer.append(memoryview(CONTENT)[:-5])
            writer.finish({})

    with pytest.raises(ValueError, match="5 bytes are lacking"):
        make()
    assert place.names() == set()


def test_what_is_left_without_a_word_is_no_result(place: Place) -> None:
    with ArchiveWriter(place.archive, "a", ENTRIES, {}) as writer:
        writer.append(memoryview(CONTENT))  # it was cancelled meanwhile
    assert place.names() == set()
    assert nothing_is_hidden(place)


def test_a_writer_that_is_killed_midway_leaves_nothing_to_be_seen(place: Place) -> None:
    ran = subprocess.run([sys.executable, "-c", WRITE, place.archive.url, "die"], check=False)
    assert ran.returncode == -signal.SIGKILL
    with pytest.raises(Missing):
        place.archive.manifest("killed")
    assert place.names() == set()
    place.archive.clean_up("killed")
    assert place.relay is not None or nothing_is_hidden(
        place
    )  # a bucket's rule has to end uploads that nobody goes on with


def test_writing_takes_the_memory_of_some_parts(place: Place) -> None:
    ran = subprocess.run([sys.executable, "-c", WRITE, place.archive.url], capture_output=True, text=True, check=True)
    assert place.archive.manifest("killed")["size"] == 120 * MIB
    assert int(ran.stdout) < 60


def nothing_is_hidden(place: Place) -> bool:
    """Whether there are no files in a folder, no begun uploads in a bucket."""
    if place.archive.folder is not None:
        return [*place.archive.folder.iterdir()] == []
    assert place.relay is not None
    return place.archive.url.rpartition("/")[2] not in ask(place.relay.to, "GET", "bucket?uploads")


# ------------------------------------------------------------------------------------------------- lost, and away


def test_a_result_whose_object_somebody_removed_is_missing_and_that_is_told(place: Place) -> None:
    write(place)
    told: list[str] = []
    run = ArchivedBytes(place.archive, "a", place.run().head, lambda: told.append("lost"))
    obstore.delete(place.archive.store, "a.safetensors")
    with pytest.raises(Missing):
        read(run, 0, 5)
    assert told == ["lost"]


def test_a_store_that_is_away_says_so_and_nothing_of_who_asked(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    write(place)
    run = place.run()
    if place.relay is not None:
        place.relay.close()
    else:
        assert place.archive.folder
        moved = place.archive.folder.rename(place.archive.folder.with_name("elsewhere"))
        place.archive.folder.write_text("no folder")
        assert moved.exists()
    with caplog.at_level(logging.DEBUG):
        for asked in (lambda: place.archive.manifest("a"), lambda: read(run, 0, 9), lambda: write(place, "b")):
            with pytest.raises(Unavailable) as raised:
                asked()
            assert raised.value.__cause__ is None
            assert SECRET not in str(raised.value)
    assert "the trace store: " in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize("place", ["bucket"], indirect=True)
def test_a_store_that_refuses_is_away_and_what_it_answers_is_not_told(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    write(place)
    with pytest.raises(Unavailable):
        ArchivedBytes(place.archive, "a", 10 * SIZE, lambda: None).gather(np.array([0]), 9)  # what there is not
    assert "416 Range Not Satisfiable" in caplog.text
    assert "<Error>" not in caplog.text


@pytest.mark.parametrize("url", ["/some/folder", "folder", "file:///some/folder"])
def test_a_folder_is_a_path_or_a_file_url(url: str) -> None:
    assert Archive(url, 1).folder == Path(url.removeprefix("file://")).absolute()
    assert Archive("s3://bucket/prefix", 1).folder is None
