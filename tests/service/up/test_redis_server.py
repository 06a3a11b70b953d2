"""Embedded Redis servers: the settings of each role, and errors on start."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from redis import Redis

import service.up.redis_server as redis_server
from service.up.redis_server import RedisServerError, Role


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: pytest's folders are too long for a socket path."""
    with tempfile.TemporaryDirectory(prefix="ct-") as name:
        yield Path(name)


@pytest.mark.parametrize(
    ("role", "settings"),
    [
        ("queue", {"maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "everysec", "save": ""}),
        ("cache", {"maxmemory-policy": "allkeys-lru", "appendonly": "no", "maxmemory": str(64 << 20), "save": ""}),
    ],
)
def test_each_role_has_its_settings(role: Role, settings: dict[str, str], folder: Path) -> None:
    with redis_server.start(role, folder, maxmemory="64mb") as server, Redis.from_url(server.url) as redis:
        found = {name: redis.config_get(name)[name] for name in settings}
    assert found == settings


def test_a_durable_cache_survives_a_kill(folder: Path) -> None:
    for expected in (None, b"1"):
        with redis_server.start("cache", folder, "64mb", durable=True) as server, Redis.from_url(server.url) as redis:
            assert redis.get("result") == expected
            redis.set("result", 1)
            server.process.kill()
            server.process.wait()


def test_only_its_user_can_connect_and_only_to_its_socket(folder: Path) -> None:
    with redis_server.start("queue", folder) as server, Redis.from_url(server.url) as redis:
        assert (folder / "queue.sock").stat().st_mode & 0o777 == 0o700
        assert redis.config_get("port")["port"] == "0"


def test_both_roles_share_a_folder(folder: Path) -> None:
    with redis_server.start("queue", folder) as queue, redis_server.start("cache", folder) as cache:
        for server in queue, cache:
            redis_server.check(server.url)


def test_jobs_survive_a_restart(folder: Path) -> None:
    with redis_server.start("queue", folder) as server, Redis.from_url(server.url) as redis:
        redis.set("job", "waiting")
    with redis_server.start("queue", folder) as server, Redis.from_url(server.url) as redis:
        assert redis.get("job") == b"waiting"


def test_a_stopped_server_has_exited(folder: Path) -> None:
    server = redis_server.start("cache", folder)
    server.stop()
    assert server.process.returncode == 0
    with pytest.raises(RedisServerError):
        redis_server.check(server.url)


def test_a_server_stops_when_its_parent_is_killed(folder: Path) -> None:
    source = """if True:
        import pathlib, sys, time
        import service.up.redis_server as redis_server
        print(redis_server.start("cache", pathlib.Path(sys.argv[1])).process.pid, flush=True)
        time.sleep(60)
    """
    with subprocess.Popen([sys.executable, "-c", source, str(folder)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        server = psutil.Process(int(parent.stdout.readline()))
        os.kill(parent.pid, signal.SIGKILL)
    assert psutil.wait_procs([server], timeout=10)[1] == []


def test_a_missing_binary_is_reported(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(RedisServerError, match=r"\Aredis-server is missing: .*\Z"):
        redis_server.find_binary()


def test_the_binary_of_the_environment_is_preferred_to_the_one_on_path(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    own, other = folder / "own", folder / "other"
    for place in own, other:
        place.mkdir()
        (place / "redis-server").touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(own / "python"))
    monkeypatch.setenv("PATH", str(other))
    assert redis_server.find_binary() == own / "redis-server"
    (own / "redis-server").unlink()
    assert redis_server.find_binary() == other / "redis-server"


def test_a_socket_path_that_is_too_long_is_rejected(folder: Path) -> None:
    with pytest.raises(RedisServerError, match="set DATA_DIR"):
        redis_server.start("cache", folder / ("long" * 30))


def test_a_failed_start_is_reported_in_one_line(folder: Path) -> None:
    with pytest.raises(RedisServerError, match=r"\Athe cache Redis did not start: argument must be a memory value\Z"):
        redis_server.start("cache", folder, maxmemory="plenty")


@pytest.mark.parametrize("url", ["unix:///nowhere/redis.sock", "redis://127.0.0.1:1/0", "gopher://localhost"])
def test_a_url_without_a_redis_is_reported_in_one_line(url: str) -> None:
    with pytest.raises(RedisServerError, match=r"\A.+\Z"):
        redis_server.check(url)
