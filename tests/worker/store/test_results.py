"""Results in the cache or the archive, by size."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis import Redis

import worker.store.pieces as pieces
from worker.store.archive import Archive
from worker.store.results import AlreadyArchived, Results
from worker.store.stored_bytes import Missing, read

ABOVE = 1000
SMALL, LARGE = b"s" * ABOVE, b"l" * (ABOVE + 1)


@pytest.fixture
def results(cache: Redis, tmp_path: Path) -> Results:
    return Results(cache, Archive(str(tmp_path), 1), ABOVE)


def write(results: Results, id: str, content: bytes) -> None:
    with results.writer(id, 60, {"id": id}) as writer:
        writer.open({"a": ("|u1", (len(content),))})(memoryview(content))
        writer.finish({"kind": "trace"})


def content(results: Results, id: str) -> bytes:
    manifest = results.manifest(id)
    return read(results.bytes_of(id, manifest), 0, manifest["size"])


def test_only_results_above_the_limit_are_archived(results: Results, tmp_path: Path) -> None:
    write(results, "small", SMALL)
    write(results, "large", LARGE)
    assert {file.name for file in tmp_path.iterdir()} == {"large.json", "large.safetensors"}
    assert {key.decode() for key in results.cache.scan_iter()} == {"result:small", "result:small:0", "archived:large"}
    assert (content(results, "small"), content(results, "large")) == (SMALL, LARGE)


def test_without_an_archive_all_results_are_cached(cache: Redis) -> None:
    results = Results(cache)
    write(results, "large", LARGE)
    assert content(results, "large") == LARGE
    with pytest.raises(Missing):
        results.recover("other")


def test_evicted_manifest_is_recovered_from_the_archive(results: Results) -> None:
    write(results, "large", LARGE)
    results.cache.flushdb()
    with pytest.raises(Missing):
        results.manifest("large")
    found = results.recover("large")
    assert found == results.manifest("large")
    assert content(results, "large") == LARGE


def test_complete_results_are_done_in_either_place(results: Results) -> None:
    write(results, "small", SMALL)
    write(results, "large", LARGE)
    write(results, "lost", SMALL)
    results.cache.unlink("result:lost:0")
    assert results.which_done(["small", "large", "lost", "never"]) == {"small", "large"}


def test_archived_result_is_not_written_again(results: Results) -> None:
    write(results, "large", LARGE)
    results.cache.flushdb()
    with pytest.raises(AlreadyArchived):
        write(results, "large", LARGE)
    assert results.which_done(["large"]) == {"large"}


def test_deleted_result_is_in_neither_place(results: Results, tmp_path: Path) -> None:
    for id in ("small", "large"):
        write(results, id, SMALL if id == "small" else LARGE)
        results.delete(id)
    assert results.cache.dbsize() == 0
    assert [*tmp_path.iterdir()] == []


def test_object_removed_from_the_archive_makes_the_result_unknown(results: Results, tmp_path: Path) -> None:
    write(results, "large", LARGE)
    (tmp_path / "large.safetensors").unlink()
    with pytest.raises(Missing):
        content(results, "large")
    assert results.which_done(["large"]) == set()
    with pytest.raises(Missing):
        results.recover("large")


def test_manifest_is_recovered_when_the_cache_is_full(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    write(results, "large", LARGE)
    results.cache.flushdb()
    used = int(results.cache.info("memory")["used_memory"])
    results.cache.config_set("maxmemory-policy", "noeviction")
    results.cache.config_set("maxmemory", used // 2)
    try:
        assert results.recover("large")["size"] == len(LARGE)
    finally:
        results.cache.config_set("maxmemory", 256 << 20)
        results.cache.config_set("maxmemory-policy", "allkeys-lru")


def test_cached_result_is_not_archived(results: Results) -> None:
    write(results, "small", SMALL)
    assert pieces.which_done(results.cache, ["small"])
    assert "archived" not in results.manifest("small")
