"""From a head to its prototypes: what is read, in which form, and what is remembered of it."""

from __future__ import annotations

import warnings
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from collapse_audit.checkpoints.loading import load_located
from collapse_audit.checkpoints.structure import discover_heads
from collapse_audit.containers.tensors import Checkpoint, StoredTensor
from collapse_audit.errors import PrototypeError
from collapse_audit.sources import load_heads, load_prototypes
from tests.small_checkpoints import SCALE, WEIGHT, D, K, head, save_torch


def test_bad_prototypes_are_reported_with_their_file(tmp_path: Path) -> None:
    path = tmp_path / "zero.npy"
    np.save(path, np.zeros((3, 4), dtype="f4"))
    with pytest.raises(PrototypeError, match=r"zero\.npy: prototypes: 3 of 3 prototypes are all"):
        load_prototypes(path)


def test_each_tensor_has_the_checksum_of_its_values(tmp_path: Path) -> None:
    save_torch(tmp_path / "head.pth", head())
    loaded = load_prototypes(tmp_path / "head.pth")
    assert dict(loaded.tensor_sha256) == {
        "head.last_layer.weight_v": sha256(WEIGHT.numpy().tobytes()).hexdigest(),
        "head.last_layer.weight_g": sha256(SCALE.numpy().tobytes()).hexdigest(),
    }
    assert loaded.tensor_keys == tuple(key for key, _ in loaded.tensor_sha256)


def test_a_checksum_does_not_depend_on_how_the_values_lie(tmp_path: Path) -> None:
    turned = WEIGHT.T.contiguous().T
    assert not turned.is_contiguous()
    digests = set()
    for name, weight in (("a", WEIGHT), ("b", turned), ("c", torch.cat([WEIGHT, WEIGHT])[K:])):
        save_torch(tmp_path / name, {"prototypes": weight})
        digests.add(load_prototypes(tmp_path / name).tensor_sha256)
    np.save(tmp_path / "d.npy", WEIGHT.numpy().astype(">f4", order="F"))
    digests.add(load_prototypes(tmp_path / "d.npy").tensor_sha256)
    assert len(digests) == 1


def test_a_kernel_is_turned_and_its_checksum_is_that_of_the_file(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "x.npz", **{"prototypes.kernel": WEIGHT.numpy().T, "prototypes.bias": SCALE}
    )
    loaded = load_prototypes(tmp_path / "x.npz")
    np.testing.assert_array_equal(loaded.rows, WEIGHT.numpy())
    assert "transposed: stored as 8 x 12" in loaded.notes[0]
    digest = sha256(np.ascontiguousarray(WEIGHT.numpy().T).tobytes()).hexdigest()
    assert dict(loaded.tensor_sha256)["prototypes.kernel"] == digest


def test_one_scale_for_the_whole_matrix_gives_the_norms_of_the_weight(tmp_path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):  # files of older code have this norm
        linear = torch.nn.utils.weight_norm(torch.nn.Linear(D, K, bias=False), dim=None)
    with torch.no_grad():
        linear.weight_v.copy_(WEIGHT)
        linear.weight_g.fill_(3.0)
    save_torch(tmp_path / "x.pth", {f"last_layer.{k}": v for k, v in linear.state_dict().items()})
    loaded = load_prototypes(tmp_path / "x.pth")
    linear(torch.ones(1, D))  # computes the weight
    expected = linear.weight.detach().norm(dim=1).double().numpy()
    np.testing.assert_allclose(loaded.norms, expected, rtol=1e-6)


def test_a_type_is_the_one_that_is_stored(tmp_path: Path) -> None:
    save_file({"prototypes": WEIGHT.bfloat16()}, tmp_path / "x.safetensors")
    assert load_prototypes(tmp_path / "x.safetensors").dtype == "bfloat16"


def test_a_stack_is_read_once_for_all_its_heads() -> None:
    reads = []

    def read() -> np.ndarray:
        reads.append(1)
        return np.random.default_rng(0).standard_normal((4, K, D)).astype(np.float32)

    stack = StoredTensor(("prototypes",), (4, K, D), "float32", 0, read)
    checkpoint = Checkpoint.flat("x", "zip", 0, [stack])
    loaded = load_located(checkpoint, discover_heads(checkpoint), "x")
    assert (len(loaded), len(reads)) == (4, 1)
    digests = {id(digest) for prototypes in loaded for _, digest in prototypes.tensor_sha256}
    assert len(digests) == 1  # one string: the stack is hashed once
    for i, prototypes in enumerate(loaded):
        np.testing.assert_array_equal(prototypes.rows, stack.read()[i])


def test_no_more_than_the_heads_asked_for_is_read() -> None:
    reads = []

    def tensor(key: str) -> StoredTensor:
        def read() -> np.ndarray:
            reads.append(key)
            return WEIGHT.numpy()

        return StoredTensor(tuple(key.split("/")), (K, D), "float32", key, read)

    keys = ("teacher/head.last_layer.weight", "student/head.last_layer.weight", "blocks.0.weight")
    checkpoint = Checkpoint.flat("x", "zip", 0, map(tensor, keys))
    heads = discover_heads(checkpoint)
    assert len(heads) == 2
    load_located(checkpoint, heads[:1], "x")
    assert reads == [keys[0]]


def test_notes_of_the_container_and_of_the_head_are_kept(tmp_path: Path) -> None:
    save_torch(tmp_path / "x.pth", {"prototypes": torch.randn(4, 9), "x": torch.ones(1)})
    (note,) = load_heads(tmp_path / "x.pth")[0].notes
    assert "fewer prototypes than dimensions (K = 4 < D = 9)" in note
