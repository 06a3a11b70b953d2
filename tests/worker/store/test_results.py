"""Results are in the cache or in the archive, as their size is; the cache may forget all that is archived."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis import Redis

import worker.store.pieces as pieces
from worker.store.archive import Archive
from worker.store.results import AlreadyThere, Results
from worker.store.stored_bytes import Missing, read

ABOVE = 1000
SMALL, LARGE = b"s" * ABOVE, b"l" * (ABOVE + 1)


@pytest.fixture
def kept(cache: Redis, tmp_path: Path) -> Results:
    return Results(cache, Archive(str(tmp_path), 1), ABOVE)


def write(kept: Results, id: str, content: bytes) -> None:
    with kept.writer(id, 60, {"id": id}) as writer:
        writer.open({"a": ("|u1", (len(content),))})(memoryview(content))
        writer.finish({"kind": "trace"})


def content(kept: Results, id: str) -> bytes:
    manifest = kept.manifest(id)
    return read(kept.bytes_of(id, manifest), 0, manifest["size"])


def test_its_size_says_where_a_result_is_and_it_is_read_alike(kept: Results, tmp_path: Path) -> None:
    write(kept, "small", SMALL)
    write(kept, "large", LARGE)
    assert {file.name for file in tmp_path.iterdir()} == {"large.json", "large.safetensors"}
    assert {key.decode() for key in kept.cache.scan_iter()} == {"result:small", "result:small:0", "archived:large"}
    assert (content(kept, "small"), content(kept, "large")) == (SMALL, LARGE)


def test_without_an_archive_all_are_in_the_cache(cache: Redis) -> None:
    kept = Results(cache)
    write(kept, "large", LARGE)
    assert content(kept, "large") == LARGE
    with pytest.raises(Missing):
        kept.recover("other")


def test_what_the_cache_forgot_is_recovered_and_known_again(kept: Results) -> None:
    write(kept, "large", LARGE)
    kept.cache.flushdb()
    with pytest.raises(Missing):
        kept.manifest("large")
    found = kept.recover("large")
    assert found == kept.manifest("large")
    assert content(kept, "large") == LARGE


def test_those_are_done_that_are_whole_wherever_they_are(kept: Results) -> None:
    write(kept, "small", SMALL)
    write(kept, "large", LARGE)
    write(kept, "lost", SMALL)
    kept.cache.unlink("result:lost:0")
    assert kept.which_done(["small", "large", "lost", "never"]) == {"small", "large"}


def test_what_is_archived_is_not_begun_again(kept: Results) -> None:
    write(kept, "large", LARGE)
    kept.cache.flushdb()
    with pytest.raises(AlreadyThere):
        write(kept, "large", LARGE)
    assert kept.which_done(["large"]) == {"large"}


def test_a_forgotten_result_is_nowhere(kept: Results, tmp_path: Path) -> None:
    for id in ("small", "large"):
        write(kept, id, SMALL if id == "small" else LARGE)
        kept.forget(id)
    assert kept.cache.dbsize() == 0
    assert [*tmp_path.iterdir()] == []


def test_what_somebody_removed_from_the_archive_is_missing_and_then_not_known_any_more(
    kept: Results, tmp_path: Path
) -> None:
    write(kept, "large", LARGE)
    (tmp_path / "large.safetensors").unlink()
    with pytest.raises(Missing):
        content(kept, "large")
    assert kept.which_done(["large"]) == set()
    with pytest.raises(Missing):
        kept.recover("large")


def test_an_archived_result_is_recovered_though_the_cache_is_full(
    kept: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(kept, "large", LARGE)
    kept.cache.flushdb()
    used = int(kept.cache.info("memory")["used_memory"])
    kept.cache.config_set("maxmemory-policy", "noeviction")
    kept.cache.config_set("maxmemory", used // 2)
    try:
        assert kept.recover("large")["size"] == len(LARGE)
    finally:
        kept.cache.config_set("maxmemory", 256 << 20)
        kept.cache.config_set("maxmemory-policy", "allkeys-lru")


def test_a_cached_result_is_that_of_the_cache_alone(kept: Results) -> None:
    write(kept, "small", SMALL)
    assert pieces.which_done(kept.cache, ["small"])
    assert "archived" not in kept.manifest("small")
