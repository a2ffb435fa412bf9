"""Two processes build once, a half-written folder is never read, errors publish nothing."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ssl_zoo.data import cache
from ssl_zoo.data.cache import cache_root, cached

SLOW_BUILDER = """
import logging, sys, time
from pathlib import Path
from ssl_zoo.data.cache import cache_root, cached

logging.basicConfig(level="INFO", stream=sys.stdout)

def build(folder: Path) -> None:
    with open(sys.argv[1], "a") as log:
        log.write("built\\n")
    (folder / "first").write_text("1")
    print("half", flush=True)
    time.sleep(float(sys.argv[2]))
    (folder / "second").write_text("2")

folder = cached("test", {"x": 1}, build)
print(sorted(path.name for path in folder.iterdir()), flush=True)
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_ZOO_CACHE", str(tmp_path / "cache"))


def start(log: Path, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SLOW_BUILDER, str(log), str(seconds)], stdout=subprocess.PIPE, text=True
    )


def test_builds_once_per_key_and_keeps_the_key() -> None:
    calls = []

    def build(folder: Path) -> None:
        calls.append(folder)
        (folder / "data").write_text("abc")

    first = cached("test", {"a": 1, "b": [2]}, build)
    assert cached("test", {"b": [2], "a": 1}, build) == first  # the order of the keys does not matter
    assert len(calls) == 1
    assert (first / "data").read_text() == "abc"
    assert '"b"' in (first / "key.json").read_text()
    assert first.parent == cache_root() / "test"
    assert cached("test", {"a": 2, "b": [2]}, build) != first
    assert len(calls) == 2


def test_two_processes_at_once_build_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    processes = [start(log, 1.0), start(log, 1.0)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert all("['first', 'key.json', 'second', 'sums.json']" in output for output in outputs)
    assert log.read_text() == "built\n"
    assert sum("waiting for it" in output for output in outputs) == 1


def test_a_killed_builder_leaves_nothing_that_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = start(log, 60)
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    output = start(log, 0).communicate(timeout=60)[0]
    assert "['first', 'key.json', 'second', 'sums.json']" in output
    assert log.read_text() == "built\n" * 2
    assert not list((tmp_path / "cache").rglob("*.partial"))


def test_an_error_publishes_nothing() -> None:
    def fail(folder: Path) -> None:
        (folder / "data").write_text("abc")
        raise RuntimeError("bad input")

    with pytest.raises(RuntimeError, match="bad input"):
        cached("test", {"a": 1}, fail)
    folder = cached("test", {"a": 1}, lambda folder: None)
    assert sorted(path.name for path in folder.iterdir()) == ["key.json", "sums.json"]


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def shortened(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def made_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("harm", [zeroed, shortened, one_bit, Path.unlink, made_a_folder])
@pytest.mark.parametrize("name", ["data", "deep/inside", "key.json", "sums.json"])
def test_a_damaged_folder_is_built_again(
    name: str, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    def build(folder: Path) -> None:
        calls.append(folder)
        (folder / "data").write_bytes(bytes(range(1, 256)) * 100)
        (folder / "deep").mkdir()
        (folder / "deep" / "inside").write_text("abc")

    folder = cached("test", {"a": 1}, build)
    assert cached("test", {"a": 1}, build) == folder
    assert (len(calls), caplog.messages) == (1, [])
    harm(folder / name)
    assert cached("test", {"a": 1}, build) == folder
    assert len(calls) == 2
    assert "is damaged: " in caplog.messages[0]
    assert (folder / "data").read_bytes()[:2] == bytes([1, 2])
    cached("test", {"a": 1}, build)
    assert len(calls) == 2


def test_hashes_are_compared_once_per_process_and_sizes_always(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(folder: Path) -> None:
        (folder / "data").write_text("abc")

    cached("test", {"a": 1}, build)
    cached("test", {"a": 1}, build)
    read: list[Path] = []
    monkeypatch.setattr(cache, "_digest", lambda path: read.append(path) or "")
    folder = cached("test", {"a": 1}, build)
    assert not read
    assert cache.find_damage(folder) is None
    (folder / "data").write_text("ab")
    assert cache.find_damage(folder) == "data has 2 bytes, not 3"


def test_links_are_not_followed_when_writing(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "data").write_text("abc")

    folder = cached("test", {"a": 1}, build)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "text").write_text("kept")
    for place in (folder, folder.with_suffix(".partial")):
        cache._remove(folder)
        place.symlink_to(precious)
        assert cached("test", {"a": 1}, build) == folder
        assert not folder.is_symlink()
        assert (folder / "data").read_text() == "abc"
    (precious / "text").rename(tmp_path / "text")
    cache._remove(folder)
    folder.with_suffix(".lock").unlink()
    folder.with_suffix(".lock").symlink_to(tmp_path / "text")
    with pytest.raises(ValueError, match=r"SSL_ZOO_CACHE=.*cannot be written.*\.lock"):
        cached("test", {"a": 1}, build)
    assert (tmp_path / "text").read_text() == "kept"


def test_a_full_disk_and_an_unwritable_place_name_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(folder: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(ValueError, match=r"SSL_ZOO_CACHE=.*disk is full"):
        cached("test", {"a": 1}, no_room)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SSL_ZOO_CACHE", str(tmp_path / "file"))
    with pytest.raises(ValueError, match=r"SSL_ZOO_CACHE=.*cannot be written"):
        cached("test", {"a": 1}, no_room)


def test_without_a_home_folder_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a user number that no account belongs to."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("SSL_ZOO_CACHE", raising=False)

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    with pytest.raises(ValueError, match="Set the environment variable SSL_ZOO_CACHE to a folder of yours"):
        cache_root()
