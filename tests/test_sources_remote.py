"""Sources that are somewhere else: the same as the file here, and fetched once."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collapse_audit import sources
from collapse_audit.errors import ParameterError, SourceError
from collapse_audit.manifest import load_manifest
from collapse_audit.manifest.entries import Manifest, PublishedCount
from collapse_audit.manifest.recipes import Recipe
from collapse_audit.remote import whole_files
from collapse_audit.remote.settings import RemoteSettings
from collapse_audit.sources import describe_source, find_remote, resolve_source


@pytest.fixture
def online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RemoteSettings:
    monkeypatch.delenv("COLLAPSE_AUDIT_OFFLINE")
    return RemoteSettings(cache_dir=tmp_path / "cache", insecure_http=True)


@pytest.fixture
def checkpoint(tmp_path: Path, small_dino: bytes) -> Path:
    (tmp_path / "dino.pth").write_bytes(small_dino)
    return tmp_path / "dino.pth"


@pytest.fixture
def row(server: Any, small_dino: bytes, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of a file that the loopback server has."""
    server.files["one.pth"] = small_dino
    count = PublishedCount(unique=19, source="A paper")
    entry = dataclasses.replace(
        load_manifest().get("dino_vits16"),
        id="dino_one", url=server.url("one.pth"), published=(count,), sha256=None, size=None,
    )  # fmt: skip
    manifest = Manifest(entries=(entry,), recipes={"dino": Recipe()}, preprocessing={})
    monkeypatch.setattr("collapse_audit.sources.load_manifest", lambda: manifest)
    return "dino_one"


def test_an_address_is_resolved_like_a_file(
    server: Any, online: RemoteSettings, checkpoint: Path, small_dino: bytes
) -> None:
    server.files["dino.pth"] = small_dino
    url = server.url("dino.pth?sig=TOPSECRET")
    found, local = resolve_source(url, settings=online), resolve_source(checkpoint)
    assert (found.spec, found.file) == (server.url("dino.pth"), "dino.pth")
    assert (found.id, found.family, found.local, found.sha256()) == (None, "dino", None, None)
    assert [head.tensor_keys for head in found.heads] == [head.tensor_keys for head in local.heads]
    here, there = (
        source.load(source.select(branch="teacher", head=None)) for source in (local, found)
    )
    assert [p.tensor_sha256 for p in there] == [p.tensor_sha256 for p in here]
    assert there[0].tensor_sha256
    np.testing.assert_array_equal(there[0].rows, here[0].rows)


def test_an_id_is_fetched_and_then_needs_no_network(
    server: Any, online: RemoteSettings, row: str
) -> None:
    found = resolve_source(row, settings=online)
    assert (found.spec, found.id, found.family) == (row, row, "dino")
    assert found.load(found.select(branch="teacher", head=None))[0].k == 256
    server.forget()
    offline = dataclasses.replace(online, offline=True)
    again = resolve_source(row, settings=offline)
    assert again.load(again.select(branch="teacher", head=None))[0].k == 256
    assert server.requests == []


def test_what_a_source_holds_is_described_the_same_from_anywhere(
    server: Any, online: RemoteSettings, row: str, checkpoint: Path
) -> None:
    server.files["dino.pth"] = checkpoint.read_bytes()
    sources = (checkpoint, server.url("dino.pth"), row)
    documents = [describe_source(resolve_source(s, settings=online)) for s in sources]
    for document in documents:
        document["source"] = documents[0]["source"]
    assert documents[0] == documents[1] == documents[2]


def test_a_file_of_torch_hub_is_hashed_once_to_be_opened_offline(
    row: str,
    online: RemoteSettings,
    small_dino: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    manifest, hashed = sources.load_manifest(), []
    digest = hashlib.sha256(small_dino).hexdigest()
    entry = dataclasses.replace(manifest.entries[0], sha256=digest)
    monkeypatch.setattr(
        sources, "load_manifest", lambda: dataclasses.replace(manifest, entries=(entry,))
    )
    monkeypatch.setattr(whole_files, "sha256_of", lambda path: hashed.append(path) or digest)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    path = tmp_path / "torch" / "hub" / "checkpoints" / entry.original_name
    path.parent.mkdir(parents=True)
    path.write_bytes(small_dino)
    found = resolve_source(row, settings=dataclasses.replace(online, offline=True))
    assert found.local is not None
    assert (found.local.path, hashed) == (path, [path])


def test_where_a_source_is_can_be_told_without_opening_it(server: Any, row: str) -> None:
    assert find_remote(row).name == row
    assert find_remote(server.url("x.pth?sig=TOPSECRET")).name == server.url("x.pth")
    assert server.requests == []


@pytest.mark.parametrize("address", ["http://", "https://x", "hf://nothing", "nosuch://a/b"])
def test_an_address_that_is_none_is_one_line(address: str, online: RemoteSettings) -> None:
    settings = dataclasses.replace(online, offline=True)
    with pytest.raises((SourceError, ParameterError)) as caught:
        resolve_source(address, settings=settings)
    assert "\n" not in str(caught.value)
