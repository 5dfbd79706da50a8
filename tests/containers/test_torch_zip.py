"""Files of torch.save in the zip container and, where both must give the same, the legacy one."""

from __future__ import annotations

import argparse
import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from collapse_audit.containers.opening import read_checkpoint, read_path
from collapse_audit.errors import CheckpointError
from collapse_audit.sources import load_prototypes, resolve_source
from tests.small_checkpoints import (
    SCALE,
    WEIGHT,
    D,
    K,
    MemorySource,
    both,
    head,
    read_bytes,
    read_every_tensor,
    rezipped,
    save_torch,
    saved,
    zip_of,
)


@both
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_stored_type_gives_exactly_its_values(
    is_zip: bool, dtype: torch.dtype, tmp_path: Path
) -> None:
    path = tmp_path / "head.pth"
    stored = WEIGHT.to(dtype)
    save_torch(path, {"teacher": head(stored, SCALE.to(dtype))}, is_zip=is_zip)
    loaded = load_prototypes(path)
    np.testing.assert_array_equal(loaded.rows, stored.double().numpy())
    np.testing.assert_array_equal(loaded.norms, SCALE.to(dtype).double().numpy()[:, 0])
    assert loaded.dtype == str(dtype).removeprefix("torch.")


@both
def test_every_tensor_is_what_torch_itself_loads(is_zip: bool) -> None:
    tree = {
        "bytes": torch.arange(9, dtype=torch.uint8),
        "flags": torch.tensor([True, False]),
        "counts": torch.arange(-3, 3),
        "short": torch.arange(3, dtype=torch.int16),
        "half": torch.randn(3, 5).half(),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "empty": torch.ones(0, 3),
        "parameter": torch.nn.Parameter(torch.randn(2, 2)),
    }
    data = saved(tree, is_zip=is_zip)
    expected = torch.load(io.BytesIO(data), weights_only=True)
    found = read_every_tensor(read_bytes(data))
    assert list(found) == list(expected)
    for key, tensor in expected.items():
        assert found[key].dtype == tensor.detach().numpy().dtype
        if tensor.numel():
            np.testing.assert_array_equal(found[key], tensor.detach().numpy())


@both
def test_types_that_no_head_is_stored_in_are_left_out_and_cost_nothing(is_zip: bool) -> None:
    tree = {"complex": torch.ones(3, 3, dtype=torch.complex64), "prototypes": WEIGHT}
    checkpoint = read_bytes(saved(tree, is_zip=is_zip))
    assert list(checkpoint.tensors) == ["prototypes"]
    assert checkpoint.top_level == ("complex", "prototypes")
    np.testing.assert_array_equal(checkpoint.tensors["prototypes"].read(), WEIGHT.numpy())


class Network(torch.nn.Module):
    """A head as a module of modules, with a parameter and a buffer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Linear(4, D), torch.nn.BatchNorm1d(D))
        self.prototypes = torch.nn.Linear(D, K, bias=False)
        self.token = torch.nn.Parameter(torch.randn(1, D))
        self.register_buffer("center", torch.randn(1, K))


@both
@pytest.mark.parametrize("below", [False, True], ids=["alone", "below a key"])
def test_a_module_saved_whole_gives_the_tensors_of_its_state_dict(
    is_zip: bool, below: bool
) -> None:
    network = Network()
    with warnings.catch_warnings(action="ignore"):  # legacy files hold the source of the class
        data = saved({"model": network} if below else network, is_zip=is_zip)
    found = read_every_tensor(read_bytes(data))
    expected = network.state_dict()
    prefix = "model." if below else ""
    assert sorted(found) == sorted(prefix + key for key in expected)
    for key, tensor in expected.items():
        np.testing.assert_array_equal(found[prefix + key], tensor.numpy())


@both
def test_files_of_numpy_1_are_read(is_zip: bool, tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    numbers = [np.float64(0.1), np.float32(2), np.int64(3), np.bool_(True), np.uint8(4)]
    args = argparse.Namespace(lr=np.float64(0.5), crops=[1, 2])
    data = saved({"teacher": head(), "schedule": numbers, "args": args}, is_zip=is_zip)
    new, old = b"numpy._core.multiarray", b"numpy.core.multiarray"
    changed = rezipped(data, lambda _, content: content.replace(new, old)) if is_zip else b""
    path.write_bytes(changed or data.replace(new, old))
    np.testing.assert_array_equal(load_prototypes(path).rows, WEIGHT.numpy())


@both
def test_plain_options_of_the_training_are_kept(is_zip: bool) -> None:
    args = argparse.Namespace(arch="vit_small", lr=0.1, epochs=3, norm=None, crops=[1])
    checkpoint = read_bytes(saved({"teacher": head(), "args": args}, is_zip=is_zip))
    assert checkpoint.options == {"arch": "vit_small", "lr": 0.1, "epochs": 3, "norm": None}


@both
def test_tensors_of_one_storage_are_equal_places_and_others_are_not(is_zip: bool) -> None:
    copy = WEIGHT.clone()
    tree = {"a": WEIGHT, "b": WEIGHT, "rows": WEIGHT[2:], "turned": WEIGHT.T, "copy": copy}
    tensors = read_bytes(saved(tree, is_zip=is_zip)).tensors
    places = {key: tensor.storage for key, tensor in tensors.items()}
    assert places["a"] == places["b"]
    assert len(set(places.values())) == 4
    np.testing.assert_array_equal(tensors["rows"].read(), WEIGHT[2:].numpy())


def test_a_file_written_on_a_machine_of_the_other_byte_order(tmp_path: Path) -> None:
    path = tmp_path / "big.pth"

    def turn(name: str, content: bytes) -> bytes:
        if name.endswith("byteorder"):
            return b"big"
        return (
            np.frombuffer(content, "<f4").astype(">f4").tobytes() if "/data/" in name else content
        )

    path.write_bytes(rezipped(saved({"prototypes": WEIGHT}), turn))
    np.testing.assert_array_equal(load_prototypes(path).rows, WEIGHT.numpy())
    assert torch.load(path, weights_only=True)["prototypes"].equal(WEIGHT)


def test_of_a_large_storage_only_the_tensor_is_read() -> None:
    pool = torch.randn(300, 1000)
    source = MemorySource(saved({"prototypes": pool[100:120], "other": pool}))
    checkpoint = read_checkpoint(source, "pool")
    before = source.bytes_read
    np.testing.assert_array_equal(checkpoint.tensors["prototypes"].read(), pool[100:120].numpy())
    assert 80_000 <= source.bytes_read - before < 81_000


# --- checksums -----------------------------------------------------------------------------------


def flipped(data: bytes, tensor: torch.Tensor) -> bytes:
    """One bit of a tensor changed."""
    place = data.index(tensor.numpy().tobytes())
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def test_a_flipped_bit_in_a_head_is_noticed_from_disk(tmp_path: Path) -> None:
    path = tmp_path / "flip.pth"
    path.write_bytes(flipped(saved({"teacher": head(), "other": WEIGHT + 1}), WEIGHT))
    assert resolve_source(path).heads[0].k == K  # the index is sound
    with pytest.raises(CheckpointError, match=r"data/\d+' is damaged: its checksum is not that"):
        load_prototypes(path)


def test_a_flipped_bit_elsewhere_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "flip.pth"
    path.write_bytes(flipped(saved({"teacher": head(), "other": WEIGHT + 1}), WEIGHT + 1))
    np.testing.assert_array_equal(load_prototypes(path).rows, WEIGHT.numpy())


def test_files_saved_without_checksums_are_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        save_torch(tmp_path / "head.pth", {"teacher": head()})
    finally:
        torch.serialization.set_crc32_options(True)
    with zipfile.ZipFile(tmp_path / "head.pth") as archive:
        assert {info.CRC for info in archive.infolist() if "/data/" in info.filename} == {0}
    np.testing.assert_array_equal(load_prototypes(tmp_path / "head.pth").rows, WEIGHT.numpy())


def test_a_deflated_checkpoint_is_read_and_its_checksums_are_verified(tmp_path: Path) -> None:
    path = tmp_path / "packed.pth"
    data = rezipped(saved({"teacher": head()}), compression=zipfile.ZIP_DEFLATED)
    path.write_bytes(data)
    np.testing.assert_array_equal(load_prototypes(path).rows, WEIGHT.numpy())
    with zipfile.ZipFile(path) as archive:
        member = next(i for i in archive.infolist() if i.file_size == WEIGHT.nbytes)
    place = member.header_offset + member.compress_size // 2
    path.write_bytes(data[:place] + bytes([data[place] ^ 255]) + data[place + 1 :])
    with pytest.raises(CheckpointError, match=r"is damaged"):
        load_prototypes(path)


# --- where the index is --------------------------------------------------------------------------


def moved(data: bytes, name: Any) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        members = {name(n): source.read(n) for n in source.namelist()}
    return zip_of(members)


@pytest.mark.parametrize("folder", ["", "run 3/best/", "../../etc/", "日本/"])
def test_the_index_may_lie_in_any_folder_of_the_archive(folder: str) -> None:
    data = moved(saved({"prototypes": WEIGHT}), lambda name: folder + name.partition("/")[2])
    np.testing.assert_array_equal(read_bytes(data).tensors["prototypes"].read(), WEIGHT.numpy())


def test_two_checkpoints_zipped_together_need_a_choice() -> None:
    first, second = (moved(saved({"a": WEIGHT}), lambda name, n=n: n + name) for n in "ab")
    both_files = io.BytesIO(first)
    with zipfile.ZipFile(both_files, "a") as target, zipfile.ZipFile(io.BytesIO(second)) as more:
        for name in more.namelist():
            target.writestr(name, more.read(name))
    with pytest.raises(CheckpointError, match=r"with 2 indices .* unpack them and give one"):
        read_bytes(both_files.getvalue())


def test_a_storage_that_is_not_in_the_archive_is_said() -> None:
    with zipfile.ZipFile(io.BytesIO(saved({"prototypes": WEIGHT}))) as source:
        members = {n: source.read(n) for n in source.namelist() if "/data/" not in n}
    checkpoint = read_bytes(zip_of(members))
    with pytest.raises(CheckpointError, match="prototypes: is in a storage that the file does not"):
        checkpoint.tensors["prototypes"].read()


def test_dictionaries_that_hold_one_another_do_not_explode(tmp_path: Path) -> None:
    path = tmp_path / "nested.pth"
    tree: dict[str, Any] = {"teacher": head()}
    for _ in range(60):
        tree = {"a": tree, "b": tree}
    tree["state_dict"] = {"teacher": head()}
    save_torch(path, tree)
    assert [h.name for h in resolve_source(path).heads] == ["head"]


def test_more_than_four_gigabytes_before_the_head(tmp_path: Path) -> None:
    path, hole = tmp_path / "large.pth", 5 * 10**9
    with (
        zipfile.ZipFile(path, "w") as target,
        zipfile.ZipFile(io.BytesIO(saved({"prototypes": WEIGHT}))) as source,
    ):
        with target.open("archive/data/9", "w", force_zip64=True) as member:
            member._file_size = hole
            target.fp.seek(hole, 1)  # nothing is written: the disk keeps a hole
        for info in source.infolist():
            target.writestr(info.filename, source.read(info))
    assert path.stat().st_size > hole
    checkpoint = read_path(path, "large.pth")
    np.testing.assert_array_equal(checkpoint.tensors["prototypes"].read(), WEIGHT.numpy())
