"""Files are whole or not there, and no link leads a write elsewhere."""

import os
from pathlib import Path

import pytest

from ssl_zoo import files


@pytest.mark.parametrize("content", ["text: π", b"\x00bytes"])
def test_a_file_is_replaced_whole(tmp_path: Path, content: str | bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    for _ in range(2):
        files.write_atomically(path, content)
        assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        files.write_atomically(path, "other")
    assert [one.name for one in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() != b"other"


@pytest.mark.parametrize("mode", ["w", "a", "ab+"])
def test_a_link_is_not_opened_and_is_replaced(tmp_path: Path, mode: str) -> None:
    precious, link = tmp_path / "precious", tmp_path / "link"
    precious.write_text("text")
    link.symlink_to(precious)
    with pytest.raises(OSError, match="link"), open(link, mode, opener=files.open_no_follow):
        pytest.fail("opened")
    files.write_atomically(link, "ours")
    assert (link.read_text(), link.is_symlink()) == ("ours", False)
    assert precious.read_text() == "text"


def test_a_link_in_place_of_the_temporary_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("text")
    (tmp_path / f".file.{os.getpid()}").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="link"):
        files.write_atomically(tmp_path / "file", "ours")
    files.write_atomically(tmp_path / "file", "ours")
    assert (tmp_path / "precious").read_text() == "text"


def test_a_link_among_the_folders_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "runs").symlink_to(tmp_path / "disk")
    files.write_atomically(tmp_path / "runs" / "file", "ours")
    assert (tmp_path / "disk" / "file").read_text() == "ours"
