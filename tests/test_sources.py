from __future__ import annotations

import re
from pathlib import Path

import pytest
from collapse_audit.checkpoints.ids import cache_dir, locate_source

from collapse_audit.errors import SourceError
from collapse_audit.manifest import candidate_file_names, load_manifest


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder and a cache of this test."""
    monkeypatch.setenv("COLLAPSE_AUDIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


@pytest.mark.parametrize("folder", ["given", "cache"])
@pytest.mark.parametrize("which", [0, -1])
def test_the_file_of_an_id_is_found_under_each_of_its_names(
    elsewhere: Path, folder: str, which: int
) -> None:
    name = candidate_file_names(load_manifest().get("dino_vits16"))[which]
    (elsewhere / folder).mkdir()
    (elsewhere / folder / name).touch()
    found = locate_source("dino_vits16", checkpoint_dir=elsewhere / "given")
    assert found.path == elsewhere / folder / name
    assert (found.spec, found.id, found.family) == ("dino_vits16", "dino_vits16", "dino")


def test_a_missing_file_of_an_id_is_said_with_its_address_and_its_place(elsewhere: Path) -> None:
    entry = load_manifest().get("dino_vits16")
    assert entry.url is not None
    with pytest.raises(SourceError, match="dino_vits16: its file is not on this machine") as caught:
        locate_source("dino_vits16", checkpoint_dir=elsewhere / "given")
    assert entry.url in caught.value.hint
    assert f"{entry.expected_size_mb} MB" in caught.value.hint
    assert f"save it as {entry.file_name} in {elsewhere / 'given'}" in caught.value.hint


def test_a_path_is_a_path(elsewhere: Path) -> None:
    Path("head.npy").touch()
    found = locate_source("head.npy")
    assert (found.path.resolve(), found.id) == (elsewhere / "here" / "head.npy", None)


def test_a_word_like_an_id_gets_a_suggestion() -> None:
    with pytest.raises(
        SourceError, match=re.escape("dino_vits1: no such file. Did you mean dino_")
    ):
        locate_source("dino_vits1")


def test_a_word_like_nothing_keeps_the_plain_message() -> None:
    with pytest.raises(SourceError, match="zzzzzz: no such file"):
        locate_source("zzzzzz")


def test_a_word_that_is_both_a_file_and_an_id_is_refused() -> None:
    Path("dino_vits16").touch()
    with pytest.raises(SourceError, match=r"Write \./dino_vits16 for the file"):
        locate_source("dino_vits16")
    assert locate_source("./dino_vits16").id is None


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
    assert cache_dir() == Path(folder)
