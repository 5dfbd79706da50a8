"""Files that are written whole or not at all, and what the rest of `files` reads back."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from pathlib import Path

import pytest

from collapse_audit.errors import SourceError
from collapse_audit.files import (
    read_bounded,
    read_json,
    replacing,
    sha256_of,
    write_atomically,
    write_json,
)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_a_new_file_has_the_permissions_of_a_plain_open(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        (tmp_path / "plain").write_bytes(b"x")
        write_atomically(tmp_path / "ours", b"x")
    finally:
        os.umask(before)
    assert mode(tmp_path / "ours") == mode(tmp_path / "plain") == 0o666 & ~mask


def test_an_older_file_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "private"
    path.write_bytes(b"old")
    path.chmod(0o600)
    write_atomically(path, b"new")
    assert (path.read_bytes(), mode(path)) == (b"new", 0o600)


def test_the_parts_follow_one_another_and_missing_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    write_atomically(path, b"one ", memoryview(b"two"))
    assert path.read_bytes() == b"one two"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_a_link_stays_a_link_also_one_to_nothing_yet(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("real")
    for content in (b"first", b"second"):
        write_atomically(link, content)
        assert link.is_symlink()
        assert (tmp_path / "real").read_bytes() == content


def test_a_device_and_a_pipe_are_written_to(tmp_path: Path) -> None:
    write_atomically(Path(os.devnull), b"x")
    assert Path(os.devnull).is_char_device()
    pipe, found = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    write_atomically(pipe, b"through")
    reader.join(10)
    assert found == [b"through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_standard_output_is_written_to_although_its_link_leads_nowhere() -> None:
    read, write = os.pipe()
    write_atomically(Path(f"/dev/fd/{write}"), b"through")
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        assert stream.read() == b"through"


@pytest.mark.parametrize("moment", ["write", "fsync", "replace"])
def test_a_failure_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def write_half() -> None:
        with replacing(path) as file:
            file.write(b"half")
            if moment == "write":
                full()

    if moment != "write":
        monkeypatch.setattr(*((os, "fsync") if moment == "fsync" else (Path, "replace")), full)
    with pytest.raises(SourceError, match=r"file: cannot be written \(No space left on device\)"):
        write_half()
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_an_error_of_the_writer_itself_passes_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "file"):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(SourceError, match="cannot be written"):
        write_atomically(loop, b"x")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux tells what is open")
def test_a_folder_that_is_read_leaves_nothing_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with pytest.raises(OSError, match="directory"):
            read_bounded(tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_folder_is_refused_with_the_hint(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"cannot be written \(Is a directory\)\. Name a file"):
        write_atomically(tmp_path, b"x", hint="Name a file.")


def test_json_reads_back_and_anything_else_is_none(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    assert read_json(path) is None
    write_json(path, {"b": [1, None], "a": "\N{SNOWMAN}"})
    assert read_json(path) == {"a": "\N{SNOWMAN}", "b": [1, None]}
    for broken in (b"[1]", b"{", b"\xff", b"[" * 100_000):
        path.write_bytes(broken)
        assert read_json(path) is None


def test_a_checksum_is_that_of_hashlib_and_tells_how_far_it_is(tmp_path: Path) -> None:
    path, content, told = tmp_path / "big", os.urandom(9 << 20), []
    path.write_bytes(content)
    found = sha256_of(path, lambda *now: told.append(now))
    assert found == hashlib.sha256(content).hexdigest()
    assert told == [("checksum", 8 << 20, 9 << 20), ("checksum", 9 << 20, 9 << 20)]
