"""Checkpoints in several files that an index ties together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from collapse_audit.containers import sharded
from collapse_audit.containers.opening import read_path
from collapse_audit.errors import (
    CheckpointError,
    CollapseAuditError,
    SourceError,
    UnsafePickleError,
)
from collapse_audit.sources import load_prototypes, resolve_source
from tests.small_checkpoints import SCALE, WEIGHT, read_bytes, zip_of

Write = Callable[..., Path]


@pytest.fixture(params=["safetensors", "bin"])
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Write:
    """Writes shards and their index, which it returns."""

    def build(*parts: dict[str, torch.Tensor], more: dict[str, str] = {}) -> Path:  # noqa: B006
        where = {}
        for i, part in enumerate(parts):
            name = f"model-{i}.{request.param}"
            save = save_file if request.param == "safetensors" else torch.save
            save(part, tmp_path / name)
            where |= dict.fromkeys(part, name)
        index = tmp_path / f"model.{request.param}.index.json"
        index.write_text(json.dumps({"weight_map": where | more}))
        return index

    return build


HALVES = (
    {"head.last_layer.weight_g": SCALE, "backbone.a": torch.ones(3)},
    {"head.last_layer.weight_v": WEIGHT},
)


def test_a_head_may_span_shards(write: Write) -> None:
    index = write(*HALVES)
    for path in (index, index.parent):
        loaded = load_prototypes(path)
        np.testing.assert_array_equal(loaded.rows, WEIGHT.numpy())
        np.testing.assert_array_equal(loaded.norms, SCALE.numpy()[:, 0])
    found = read_path(index, "model")
    assert (found.container, len(found.tensors)) == ("sharded", 3)
    assert found.size == sum(path.stat().st_size for path in index.parent.glob("model-?.*"))


def test_the_order_is_that_of_the_index_and_equal_places_are_of_one_file(write: Write) -> None:
    same = torch.ones(4, 4)
    index = write({"a.prototypes": same}, {"b.prototypes": same.clone()})
    tensors = read_path(index, "model").tensors
    assert list(tensors) == ["a.prototypes", "b.prototypes"]
    assert tensors["a.prototypes"].storage != tensors["b.prototypes"].storage
    assert len(resolve_source(index).heads) == 2


def test_a_folder_with_both_kinds_gives_the_safe_one(tmp_path: Path) -> None:
    for suffix, value in (("bin", 1.0), ("safetensors", 2.0)):
        part = {"prototypes": torch.full((4, 2), value)}
        (save_file if suffix == "safetensors" else torch.save)(part, tmp_path / f"m-1.{suffix}")
        (tmp_path / f"model.{suffix}.index.json").write_text(
            json.dumps({"weight_map": {"prototypes": f"m-1.{suffix}"}})
        )
    assert read_path(tmp_path, "m").tensors["prototypes"].read()[0, 0] == 2


def test_a_shard_that_was_not_downloaded_is_named(write: Write) -> None:
    index = write(*HALVES)
    missing = next(index.parent.glob("model-1.*"))
    missing.unlink()
    with pytest.raises(SourceError, match=rf"{missing.name}: is missing\. Download it too"):
        load_prototypes(index)


def test_a_key_that_the_shard_does_not_hold_is_named(write: Write) -> None:
    index = write(*HALVES)
    index.write_text(index.read_text().replace("backbone.a", "backbone.b"))
    with pytest.raises(CheckpointError, match=r"model-0\.\w+ does not hold 'backbone\.b', as the"):
        load_prototypes(index)


@pytest.mark.parametrize("file", ["../x.bin", "/etc/passwd", "a/b", "..", ".", "", "a\\b", "x\0"])
def test_files_of_another_folder_are_never_opened(file: str, write: Write) -> None:
    index = write(*HALVES, more={"head.other": file})
    with pytest.raises(CheckpointError, match=r"names a file (of|that) .*it was not opened"):
        load_prototypes(index)


@pytest.mark.parametrize(
    "text",
    ["{}", '{"weight_map": 3}', '{"weight_map": ["a"]}', "{", '{"schema": "collapse-audit/report"}',
     '{"weight_map": ' + "[" * 50_000 + "]" * 50_000 + "}", '{"weight_map": null}'],
)  # fmt: skip
def test_other_json_is_not_an_index(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match="JSON, but not the index of a sharded checkpoint"):
        read_path(path, "x.json")


def test_an_index_of_no_files_or_of_very_many_is_refused(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharded, "FILES", 1)
    with pytest.raises(CheckpointError, match="names no files, or over 1"):
        read_path(write(*HALVES), "x")
    with pytest.raises(CheckpointError, match="names no files, or over 1"):
        read_path(write(), "x")


def test_an_index_among_the_shards_of_an_index_is_not_followed(write: Write) -> None:
    index = write(*HALVES, more={"x": "again.index.json"})
    (index.parent / "again.index.json").write_text(index.read_text())
    with pytest.raises(CheckpointError, match="only this one can be opened here"):
        read_path(index, "x")


def test_a_shard_is_as_safe_as_a_file(write: Write) -> None:
    index = write(*HALVES, more={"x": "evil.bin"})
    program = b"\x80\x02cposix\nsystem\nU\x04trueq\x00\x85R."
    (index.parent / "evil.bin").write_bytes(zip_of({"a/data.pkl": program}))
    with pytest.raises(UnsafePickleError, match=r"evil\.bin: its pickle names posix\.system"):
        load_prototypes(index)


@pytest.mark.parametrize("tenth", range(10))
def test_a_truncated_index_or_shard_is_an_error_of_one_line(write: Write, tenth: int) -> None:
    index = write(*HALVES)
    for path in sorted(index.parent.glob("model*")):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) * tenth // 10])
        with pytest.raises(CollapseAuditError) as caught:
            load_prototypes(index)
        assert "\n" not in str(caught.value)
        path.write_bytes(content)
    assert load_prototypes(index).k == len(WEIGHT)


def test_bytes_alone_cannot_be_an_index() -> None:
    with pytest.raises(CheckpointError, match="in several files, and only this one can be opened"):
        read_bytes(b'{"weight_map": {"a": "b"}}')
