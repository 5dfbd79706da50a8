"""Folders of torch.distributed.checkpoint."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed import checkpoint as dcp

from collapse_audit.containers.byte_source import LocalFile
from collapse_audit.containers.opening import read_checkpoint, read_path
from collapse_audit.errors import (
    CheckpointError,
    CollapseAuditError,
    SourceError,
    UnsafePickleError,
)
from collapse_audit.sources import load_prototypes, resolve_source
from tests.small_checkpoints import (
    SCALE,
    WEIGHT,
    K,
    MemorySource,
    head,
    read_every_tensor,
)


def save(state: Any, folder: Path) -> Path:
    with warnings.catch_warnings(action="ignore"):  # that there is one process only
        dcp.save(state, checkpoint_id=folder, no_dist=True)
    return folder


def network() -> dict[str, Any]:
    return {"backbone.blocks.0.weight": torch.ones(200, 500), **head()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = {"teacher": network(), "student": head(WEIGHT + 1)}
    return save({"model": model, "iteration": 1249, "optimizer": {}}, tmp_path / "1249")


def test_the_tensors_are_what_was_saved_under_their_nested_keys(folder: Path) -> None:
    checkpoint = read_path(folder, "1249")
    assert checkpoint.container == "dcp"
    assert checkpoint.size == sum(path.stat().st_size for path in folder.iterdir())
    expected = {f"model/teacher/{key}": t for key, t in network().items()}
    expected |= {f"model/student/{key}": t for key, t in head(WEIGHT + 1).items()}
    found = read_every_tensor(checkpoint)
    assert sorted(found) == sorted(expected)
    for key, tensor in expected.items():
        np.testing.assert_array_equal(found[key], tensor.numpy(), strict=True)
    assert "iteration" in checkpoint.top_level


def test_the_teacher_is_audited_from_the_folder_and_from_its_index(folder: Path) -> None:
    for source in (folder, folder / ".metadata"):
        loaded = load_prototypes(source)
        assert loaded.branch == "teacher"
        np.testing.assert_array_equal(loaded.rows, WEIGHT.numpy())
        np.testing.assert_array_equal(loaded.norms, SCALE.numpy()[:, 0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_stored_type_gives_exactly_its_values(dtype: torch.dtype, tmp_path: Path) -> None:
    save({"prototypes": WEIGHT.to(dtype)}, tmp_path / "x")
    loaded = load_prototypes(tmp_path / "x")
    np.testing.assert_array_equal(loaded.rows, WEIGHT.to(dtype).double().numpy())
    assert loaded.dtype == str(dtype).removeprefix("torch.")


@pytest.mark.parametrize("dtype", ["e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz"])
@pytest.mark.parametrize("scale", [torch.tensor(0.03), torch.rand(K, 1) + 1])
def test_a_head_in_float8_is_read_and_its_scale_said_as_of_a_single_file(
    dtype: str, scale: torch.Tensor, tmp_path: Path
) -> None:
    weight = WEIGHT.to(getattr(torch, f"float8_{dtype}"))
    teacher = {"prototypes.weight": weight, "prototypes.weight_scale": scale}
    torch.save({"teacher": teacher}, tmp_path / "x.pth")
    alone = load_prototypes(tmp_path / "x.pth")
    loaded = load_prototypes(save({"teacher": teacher}, tmp_path / "x"))
    np.testing.assert_array_equal(loaded.rows, weight.float().numpy())
    assert (loaded.dtype, loaded.notes) == (f"float8_{dtype}", alone.notes)
    assert len(loaded.notes) == (scale.numel() > 1)
    if loaded.notes:
        assert "teacher/prototypes.weight_scale beside the float8 weight" in loaded.notes[0]


@given(shape=st.lists(st.integers(0, 4), max_size=4), turned=st.booleans())
def test_tensors_of_any_shape_are_read(
    shape: list[int], turned: bool, tmp_path_factory: Any
) -> None:
    tensor = torch.arange(float(np.prod(shape, dtype=int))).reshape(shape)
    tensor = tensor.T if turned and tensor.ndim == 2 else tensor
    where = save({"a": tensor, "b": torch.ones(1)}, tmp_path_factory.mktemp("dcp") / "x")
    found = read_path(where, "x").tensors
    assert found["b"].read().tolist() == [1]
    if tensor.numel():
        np.testing.assert_array_equal(found["a"].read(), tensor.numpy(), strict=True)


def test_of_the_files_only_the_head_is_read(folder: Path) -> None:
    opened: dict[str, MemorySource] = {}

    def sibling(name: str) -> MemorySource:
        return opened.setdefault(name, MemorySource((folder / name).read_bytes()))

    metadata = MemorySource((folder / ".metadata").read_bytes())
    checkpoint = read_checkpoint(metadata, "x", file=".metadata", sibling=sibling)
    assert opened == {}
    checkpoint.tensors["model/teacher/head.last_layer.weight_v"].read()
    ((_, source),) = opened.items()
    assert source.size > 400_000
    assert source.bytes_read < 10_000


def test_one_file_of_it_asks_for_the_folder(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"only its \.metadata explains\. Give the folder"):
        load_prototypes(next(folder.glob("*.distcp")))


def test_the_index_alone_cannot_be_opened(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"in several files.*Give its folder"):
        read_checkpoint(LocalFile(folder / ".metadata"), "x")


def test_a_file_that_is_missing_is_named(folder: Path) -> None:
    gone = next(folder.glob("*.distcp"))
    gone.unlink()
    assert resolve_source(folder).heads[0].k == K  # the index is there
    with pytest.raises(SourceError, match=rf"{gone.name}: is missing"):
        load_prototypes(folder)


@pytest.mark.parametrize("tenth", range(10))
def test_a_truncated_folder_is_an_error_of_one_line(folder: Path, tenth: int) -> None:
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) * tenth // 10])
        with pytest.raises(CollapseAuditError) as caught:
            read_every_tensor(read_path(folder, "1249"))
        assert "\n" not in str(caught.value)
        path.write_bytes(content)


def test_a_flipped_bit_in_the_head_is_noticed(folder: Path) -> None:
    path = next(folder.glob("*.distcp"))
    content = bytearray(path.read_bytes())
    content[content.index(WEIGHT.numpy().tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="its checksum is not that of the directory"):
        load_prototypes(folder)


Change = Callable[[bytes], bytes]
CHANGES: dict[str, tuple[Change, str]] = {
    "another folder": (lambda d: d.replace(b"__0_0.distcp", b"../_0.distcp"), "of another folder"),
    "no class known": (lambda d: d.replace(b"TensorStorage", b"TensorSt0rage"), "no prototypes"),
    "no places": (lambda d: d.replace(b"storage_data", b"storage_dat4"), "lists no tensors"),
    "no chunks": (lambda d: d.replace(b"chunks", b"chunk_"), r"cannot be understood \('chunks'\)"),
    "a tensor in no place": (lambda d: d.replace(b"fqn", b"fqm"), r"be understood \('fqn'\)"),
    "a type that is none": (lambda d: d.replace(b"float32", b"float99"), "no prototypes"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_an_index_that_was_changed_is_refused_in_words(name: str, folder: Path) -> None:
    change, message = CHANGES[name]
    path = folder / ".metadata"
    content = path.read_bytes()
    assert change(content) != content
    path.write_bytes(change(content))
    with pytest.raises(CheckpointError, match=message):
        load_prototypes(folder)


def test_an_index_that_wants_to_run_code_is_refused(folder: Path) -> None:
    path = folder / ".metadata"
    content = path.read_bytes()
    at = content.index(b"\x8c")  # the first text
    path.write_bytes(content[:at] + b"cposix\nsystem\n" + content[at:])
    with pytest.raises(UnsafePickleError, match=r"1249/\.metadata: its pickle names posix\.system"):
        load_prototypes(folder)


def test_files_of_another_run_are_noticed_by_their_shapes(tmp_path: Path) -> None:
    folder = save({"prototypes": WEIGHT}, tmp_path / "a")
    other = save({"prototypes": WEIGHT.T.contiguous()}, tmp_path / "b")
    for path in other.glob("*.distcp"):
        path.replace(folder / path.name)
    with pytest.raises(CheckpointError, match="holds another tensor than the index says"):
        load_prototypes(folder)
