"""What the user typed: a path, a folder, an id, an address, or the demo."""

from __future__ import annotations

import errno
import re
import socket
import time
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from collapse_audit.errors import NoPrototypesError, SourceError
from collapse_audit.examples import embedded_head
from collapse_audit.manifest import load_manifest
from collapse_audit.manifest.entries import candidate_file_names
from collapse_audit.remote.reporting import Reporter
from collapse_audit.remote.settings import RemoteSettings
from collapse_audit.sources import (
    load_heads,
    load_prototypes,
    resolve_source,
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder and a cache of this test."""
    monkeypatch.setenv("COLLAPSE_AUDIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


@pytest.fixture
def checkpoint(small_dino: bytes) -> Path:
    """A checkpoint in the working folder."""
    Path("dino.pth").write_bytes(small_dino)
    return Path("dino.pth").absolute()


# --- paths ---------------------------------------------------------------------------------------


def test_a_path_is_found_as_typed(checkpoint: Path) -> None:
    assert resolve_source("dino.pth").spec == "dino.pth"
    found = resolve_source(Path("./dino.pth")).local.path
    assert found is not None
    assert found.samefile(checkpoint)
    assert load_prototypes("dino.pth").source == "dino.pth"
    assert resolve_source("dino.pth").id is None


def test_an_absolute_path_is_not_put_into_reports(checkpoint: Path) -> None:
    resolved = resolve_source(checkpoint)
    assert (resolved.spec, resolved.id, resolved.family) == ("dino.pth", None, "dino")


def test_a_home_folder_is_expanded(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(checkpoint.parent))
    assert resolve_source("~/dino.pth").local.path == checkpoint


def test_the_checkpoint_folder_is_searched_too(checkpoint: Path, elsewhere: Path) -> None:
    (elsewhere / "given").mkdir()
    checkpoint.rename(elsewhere / "given" / "dino.pth")
    resolved = resolve_source("dino.pth", checkpoint_dir=elsewhere / "given")
    assert resolved.local.path == elsewhere / "given" / "dino.pth"
    assert resolved.spec == "dino.pth"


def test_the_folder_of_a_checkpoint_is_one(checkpoint: Path, elsewhere: Path) -> None:
    from safetensors.numpy import save_file

    weight = np.eye(7, dtype=np.float32)
    save_file({"prototypes.weight": weight}, elsewhere / "here" / "model.safetensors")
    checkpoint.unlink()
    resolved = resolve_source(elsewhere / "here")
    assert (resolved.spec, resolved.local, resolved.sha256()) == ("here", None, None)
    np.testing.assert_array_equal(load_prototypes(".").rows, weight)


def test_only_the_index_is_read_and_the_heads_are_found_once(checkpoint: Path) -> None:
    resolved = resolve_source(checkpoint)
    assert resolved.heads is resolved.heads
    assert resolved.sha256() == sha256(checkpoint.read_bytes()).hexdigest()
    seen: list[tuple[str, int, int]] = []
    resolved.sha256(lambda *progress: seen.append(progress))
    assert seen[-1] == ("checksum", checkpoint.stat().st_size, checkpoint.stat().st_size)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("dina.pth", r"dina\.pth: no such file\. Did you mean dino\.pth\?"),
        ("missing", r"missing: no such file\. Check the path\."),
        ("no/such/folder/x.pth", r"no such file\. Check the path"),
        (".", r"is a folder, and not a checkpoint.*such as dino\.pth"),
        ("/dev/null", "not a regular file"),
        ("x" * 5000, "cannot be opened"),
        ("nul\0byte", r"nul\\x00byte: "),
        ("~nobody-of-this-name/x.pth", "cannot be opened"),
        ("", "a source without a name"),
    ],
)
@pytest.mark.usefixtures("checkpoint")
def test_a_source_that_is_no_file_says_what_it_is(source: str, message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        load_prototypes(source)
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


def test_a_backbone_that_the_manifest_knows_is_told_where_its_head_is() -> None:
    import torch

    entry = load_manifest().get("dino_vits16")
    assert entry.backbone_url is not None
    name = Path(entry.backbone_url).name
    torch.save({"blocks.0.norm1.weight": torch.ones(4), "norm.weight": torch.ones(4)}, name)
    with pytest.raises(NoPrototypesError) as caught:
        load_heads(name)
    assert f"{entry.url} (id dino_vits16)" in caught.value.hint


def test_a_checkpoint_of_a_link_is_that_of_its_target(checkpoint: Path) -> None:
    Path("last.pth").symlink_to(checkpoint)
    assert load_prototypes("last.pth").source == "last.pth"
    Path("loop.pth").symlink_to("loop.pth")
    with pytest.raises(SourceError, match="loop"):
        resolve_source("loop.pth")


# --- the demo ------------------------------------------------------------------------------------


def test_the_demo_is_the_head_inside_the_package() -> None:
    resolved = resolve_source("demo")
    assert (resolved.spec, resolved.local.path, resolved.family) == (
        "demo",
        embedded_head(),
        "collapse_audit",
    )
    assert load_prototypes("demo").k == 512


# --- ids -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["given", "cache"])
@pytest.mark.parametrize("which", [0, -1])
def test_the_file_of_an_id_is_found_under_each_of_its_names(
    elsewhere: Path, folder: str, which: int, small_dino: bytes
) -> None:
    name = candidate_file_names(load_manifest().get("dino_vits16"))[which]
    (elsewhere / folder).mkdir()
    (elsewhere / folder / name).write_bytes(small_dino)
    found = resolve_source("dino_vits16", checkpoint_dir=elsewhere / "given")
    assert found.local.path == elsewhere / folder / name
    assert (found.spec, found.id, found.family) == ("dino_vits16", "dino_vits16", "dino")
    assert load_heads("dino_vits16", checkpoint_dir=elsewhere / "given")[0].k == 256


def test_the_folder_that_is_given_comes_before_the_cache(
    elsewhere: Path, small_dino: bytes
) -> None:
    for folder in ("given", "cache"):
        (elsewhere / folder).mkdir()
        (elsewhere / folder / "dino_vits16.pth").write_bytes(small_dino)
    settings = RemoteSettings(cache_dir=elsewhere / "cache")
    found = resolve_source("dino_vits16", checkpoint_dir=elsewhere / "given", settings=settings)
    assert found.local.path == elsewhere / "given" / "dino_vits16.pth"
    assert resolve_source("dino_vits16", settings=settings).local.path == (
        elsewhere / "cache" / "dino_vits16.pth"
    )


@pytest.mark.parametrize("folder", ["given", "cache"])
def test_a_missing_file_of_an_id_is_said_with_its_address_and_its_place(
    elsewhere: Path, folder: str
) -> None:
    entry = load_manifest().get("dino_vits16")
    assert entry.url is not None
    chosen = elsewhere / "given" if folder == "given" else None
    with pytest.raises(SourceError, match="dino_vits16: not in the cache, and offline") as caught:
        resolve_source("dino_vits16", checkpoint_dir=chosen)
    assert entry.url in caught.value.hint
    assert f"{entry.expected_size_mb} MB" in caught.value.hint
    assert f"save it as {entry.file_name} in {elsewhere / folder}" in caught.value.hint


@pytest.mark.parametrize(
    "error",
    [socket.gaierror(socket.EAI_AGAIN, "no name"), OSError(errno.ENETUNREACH, "unreachable")],
)
def test_without_a_network_an_id_gives_up_soon_and_says_what_to_do_by_hand(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    asked = []

    def refuse(*arguments: object, **_more: object) -> None:
        asked.append(arguments)
        raise error

    monkeypatch.delenv("COLLAPSE_AUDIT_OFFLINE")
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    settings = RemoteSettings(cache_dir=elsewhere / "cache", backoff_seconds=0.0)
    with pytest.raises(SourceError, match=r"(?:not known|failed) .*\(2 attempts\)") as caught:
        resolve_source("dino_vits16", settings=settings)
    assert len(asked) == 2
    url = load_manifest().get("dino_vits16").url
    cache = elsewhere / "cache"
    by_hand = f"Download {url} (about 704 MB) and save it as dino_vits16.pth in {cache}."
    assert caught.value.hint.endswith(by_hand)


def test_a_wait_is_told_while_it_lasts(capsys: pytest.CaptureFixture[str]) -> None:
    told = ""
    with Reporter().waiting("x.pth: waiting for https://y", seconds=0.0):
        for _ in range(60_000):
            told += capsys.readouterr().err
            if told:
                break
            time.sleep(0.01)
    assert told == "x.pth: waiting for https://y\n"
    with Reporter().waiting("never", seconds=3600.0):
        pass
    assert capsys.readouterr().err == ""


def test_an_id_whose_file_is_not_public_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLLAPSE_AUDIT_OFFLINE")
    entry = next(entry for entry in load_manifest().entries if entry.url is None)
    with pytest.raises(SourceError, match="No file with this head is public"):
        resolve_source(entry.id)


def test_a_word_like_an_id_gets_a_suggestion() -> None:
    with pytest.raises(
        SourceError, match=re.escape("dino_vits1: no such file. Did you mean dino_")
    ):
        resolve_source("dino_vits1")


def test_a_word_that_is_both_a_file_and_an_id_is_refused(checkpoint: Path) -> None:
    checkpoint.rename("dino_vits16")
    with pytest.raises(SourceError, match=r"Write \./dino_vits16 for the file"):
        resolve_source("dino_vits16")
    assert resolve_source("./dino_vits16").id is None


# --- the cache -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"COLLAPSE_AUDIT_CACHE": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/a"),
        ({"XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/b/collapse-audit"),
        ({"HOME": "/c"}, "/c/.cache/collapse-audit"),
    ],
)
def test_the_cache_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], folder: str
) -> None:
    for name in ("COLLAPSE_AUDIT_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert RemoteSettings.from_environment().cache_dir == Path(folder)
