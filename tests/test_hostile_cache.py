"""The cache, lock file and temporaries as somebody else may have left them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from collapse_audit.auditing import audit_source
from collapse_audit.errors import CollapseAuditError, SourceError
from collapse_audit.files import read_bounded, replacing, sha256_of, write_atomically
from collapse_audit.remote.addresses import Remote, remote_of_url
from collapse_audit.remote.maintenance import cache_items, verify_cache
from collapse_audit.remote.remote_source import open_source
from collapse_audit.remote.reporting import SILENT
from collapse_audit.remote.settings import RemoteSettings
from collapse_audit.remote.whole_files import fetch_file
from collapse_audit.sources import resolve_source
from tests.loopback_server import remote_settings

CASES = 300
VALUES: list[Any] = [
    None, True, -1, 0, 1, 2**62, 2**63, 10**400, 1.5, "", "x", "\ud800\x1b", [], {}, ["x"],
    {"a": 1},
]  # fmt: skip
NAMES = (
    "ranges/0-65536", "ranges/0-99999999999999999999", "ranges/-1-5", "ranges/0-0", "ranges/٣-٤",
    "ranges/../../x", "whole/../../../etc/passwd", "whole/a.pth", "/etc/passwd", "", "index.json",
    f"ranges/{2**60}-{2**60}", "ranges/1-1000000000000000",
)  # fmt: skip


@pytest.fixture
def settings(tmp_path: Path) -> RemoteSettings:
    return dataclasses.replace(remote_settings(tmp_path), retries=0)


@pytest.fixture
def remote(server: Any, settings: RemoteSettings, legacy_dino: bytes) -> Remote:
    """A file of which the cache holds a few parts."""
    server.files["a.pth"] = legacy_dino
    remote = remote_of_url(server.url("a.pth"))
    open_source(remote, settings, SILENT).read(200_000, 10)
    return remote


def changed(content: dict[str, Any], draw: random.Random) -> Any:
    """An index of which one or two things are something else."""
    for _ in range(draw.randint(1, 2)):
        place = draw.choice([content, content.get("version"), content.get("files")])
        if not isinstance(place, dict):
            continue
        key = draw.choice([*place, *NAMES, "more"])
        if draw.random() < 0.2:
            place.pop(key, None)
        else:
            place[key] = draw.choice([*VALUES, "0" * 64])
    return draw.choice(VALUES) if draw.random() < 0.05 else content


@pytest.mark.slow
def test_a_changed_index_never_changes_what_is_read(
    remote: Remote, settings: RemoteSettings, legacy_dino: bytes
) -> None:
    index = settings.cache_dir / "files" / remote.key / "index.json"
    kept = index.read_text()
    refused = 0
    for seed in range(CASES):
        index.write_text(json.dumps(changed(json.loads(kept), random.Random(seed))))
        try:
            source = open_source(remote, settings, SILENT)
            start = 200_000 if seed % 2 else 0
            assert source.read(start, 10) == legacy_dino[start : start + 10]
        except CollapseAuditError as error:
            refused += len(str(error).splitlines()) or CASES
        cache_items(settings)
        verify_cache(settings)
    assert refused < CASES // 2  # what is unsound counts as not there, and is fetched again


def test_the_cached_address_is_compared(
    remote: Remote, settings: RemoteSettings, server: Any, legacy_dino: bytes
) -> None:
    index = settings.cache_dir / "files" / remote.key / "index.json"
    content = json.loads(index.read_text())
    index.write_text(json.dumps({**content, "source": "https://example.org/other.pth"}))
    before = server.sent
    assert open_source(remote, settings, SILENT).read(0, 10) == legacy_dino[:10]
    assert server.sent > before


@pytest.mark.parametrize("part", ["index.json", "ranges/0-65536", "whole/a.pth", "lock"])
@pytest.mark.parametrize("kind", ["fifo", "link", "folder"])
def test_pipes_and_links_in_the_cache_end_in_one_line_or_are_not_followed(
    remote: Remote, settings: RemoteSettings, tmp_path: Path, part: str, kind: str
) -> None:
    folder = settings.cache_dir / "files" / remote.key
    path = folder.with_name(f"{folder.name}.lock") if part == "lock" else folder / part
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    make: dict[str, Callable[[], object]] = {
        "fifo": lambda: os.mkfifo(path),
        "link": lambda: path.symlink_to(victim),
        "folder": path.mkdir,
    }
    make[kind]()
    before = stat.S_IFMT(path.lstat().st_mode)
    lines = ["none"]
    try:
        open_source(remote, settings, SILENT).read(300_000, 10)
        fetch_file(remote, settings, SILENT)
    except SourceError as error:
        lines = str(error).splitlines()
    assert len(lines) == 1
    cache_items(settings)
    verify_cache(settings)
    assert victim.read_bytes() == b"mine"
    if kind != "link" and path.exists():
        assert stat.S_IFMT(path.lstat().st_mode) == before


def damaged(path: Path, data: bytes, draw: random.Random) -> None:
    """Put something else into the place of a file of the cache."""
    at = draw.randrange(len(data))
    kind = draw.choice(["bit", "bit", "block", "short", "long", "other", "link", "pipe", "folder"])
    other = path.with_name("elsewhere")
    other.write_bytes(b"mine")
    contents = {
        "bit": data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :],
        "block": data[:at] + draw.randbytes(min(512, len(data) - at)) + data[at + 512 :],
        "short": data[:at],
        "long": data + b"x",
        "other": data[::-1],
    }
    path.unlink()
    if kind == "link":
        path.symlink_to(other)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(contents[kind])


@pytest.mark.parametrize("part", ["whole", "ranges"])
def test_a_damaged_file_of_the_cache_is_fetched_again_or_said(
    server: Any, settings: RemoteSettings, small_dino: bytes, part: str
) -> None:
    server.files["a.pth"] = small_dino
    remote = remote_of_url(server.url("a.pth"))

    def audited(settings: RemoteSettings) -> bytes:
        resolved = resolve_source(server.url("a.pth"), settings=settings, reporter=SILENT)
        (head,) = resolved.load(resolved.select(branch="teacher", head=None))
        return head.rows.tobytes()

    right = audited(settings)
    folder = settings.cache_dir / "files" / remote.key
    refused = 0
    for seed in range(CASES // 3):
        shutil.rmtree(folder)
        if part == "whole":
            path = fetch_file(remote, settings, SILENT)
        else:
            audited(settings)
            path = random.Random(seed).choice(sorted((folder / "ranges").iterdir()))
        damaged(path, path.read_bytes(), random.Random(seed))
        before = server.sent
        with suppress(CollapseAuditError):
            assert audited(replace(settings, offline=True)) == right
        assert server.sent == before
        try:
            assert audited(settings) == right
        except SourceError as error:
            # in the place of a pipe or folder
            refused += 1 if "cannot be written" in str(error) else CASES
        else:
            assert server.sent > before
    assert refused < CASES // 9


def test_a_whole_file_is_hashed_once_for_an_audit(
    server: Any, settings: RemoteSettings, small_dino: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["a.pth"] = small_dino
    fetch_file(remote_of_url(server.url("a.pth")), settings, SILENT)
    hashed: list[Path] = []
    for place in ("remote.whole_files", "containers.byte_source"):
        monkeypatch.setattr(
            f"collapse_audit.{place}.sha256_of",
            lambda path, *_: hashed.append(path) or sha256_of(path),
        )
    (audited,) = audit_source(server.url("a.pth"), settings=settings, reporter=SILENT)
    assert audited.source.sha256 == hashlib.sha256(small_dino).hexdigest()
    assert len(hashed) == 1


def test_a_partial_file_that_is_a_link_is_not_written_through(
    remote: Remote, settings: RemoteSettings, tmp_path: Path, legacy_dino: bytes
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    whole = settings.cache_dir / "files" / remote.key / "whole"
    whole.mkdir()
    for name in ("a.pth.partial", "a.pth.partial.json"):
        (whole / name).symlink_to(victim)
    assert fetch_file(remote, settings, SILENT).read_bytes() == legacy_dino
    assert victim.read_bytes() == b"mine"


def test_a_temporary_name_that_was_guessed_is_not_written_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda _: "guessed")
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (tmp_path / ".out.guessed.tmp").symlink_to(victim)
    with pytest.raises(SourceError):
        write_atomically(tmp_path / "out", b"theirs")
    assert victim.read_bytes() == b"mine"
    with (
        pytest.raises(SourceError, match="no regular file"),
        replacing(Path(os.devnull), follow=False),
    ):
        pass


def test_a_text_without_end_and_a_pipe_without_writer_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="a pipe that nobody writes into"):
        read_bounded(tmp_path / "pipe")
    with pytest.raises(OSError, match="too large"):
        read_bounded(Path("/dev/zero"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("audit", "pipe"), ("audit", "pipe.pth"), ("info", "pipe.pth"), ("mlcd", "pipe.pth"),
        ("compare", "pipe.json", "pipe.json"), ("check", "pipe.json"), ("check", "/dev/zero.pth"),
        ("check", "demo", "--baseline", "pipe"), ("check", "demo", "--baseline", "/dev/zero"),
        ("check", "demo", "--baseline", "pipe", "--update-baseline"),
        ("check", "demo", "--baseline", "/dev/null", "--update-baseline"),
        ("audit", "file://{}/pipe.pth"), ("audit", "folder"),
    ],
)  # fmt: skip
def test_a_pipe_as_source_or_baseline_ends_in_one_line(
    tmp_path: Path, arguments: tuple[str, ...], repository: Path
) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "pipe.pth", "pipe.json", "folder/model.safetensors"):
        os.mkfifo(tmp_path / name)
    command = [word.format(tmp_path) for word in arguments]
    ended = subprocess.run(
        [sys.executable, "-m", "collapse_audit", *command, "--cache-dir", "cache"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert ended.returncode == 2, ended
    assert ended.stderr.startswith("error: ")
    assert "internal" not in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)


def test_a_lock_file_with_other_types_is_refused(remote: Remote, settings: RemoteSettings) -> None:
    for value in VALUES:
        content = {"schema": "collapse-audit/lock", "sources": {remote.lock_key: {"file": value}}}
        settings.lock_file.write_text(json.dumps(content))
        if not isinstance(value, str):
            with pytest.raises(SourceError, match="not a lock file"):
                fetch_file(remote, settings, SILENT)
