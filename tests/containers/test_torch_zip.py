"""Containers and stored types: what is read, and with what it is read."""

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from collapse_audit.checkpoints import describe, find_heads, load_heads, load_prototypes
from collapse_audit.errors import CheckpointError, PrototypeError, SourceError
from tests.small_checkpoints import (
    GOOD_FILES,
    SCALE,
    WEIGHT,
    D,
    K,
    both,
    head,
    rewrite_zip,
    save_torch,
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
    assert loaded.dtype == str(dtype).removeprefix("torch.")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_safetensors_give_exactly_their_values(dtype: torch.dtype, tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    stored = WEIGHT.to(dtype)
    save_file(head(stored, SCALE.to(dtype)) | {"other": torch.arange(3)}, path)
    loaded = load_prototypes(path)
    np.testing.assert_array_equal(loaded.rows, stored.double().numpy())
    np.testing.assert_array_equal(loaded.norms, SCALE.to(dtype).double().numpy()[:, 0])
    assert loaded.dtype == str(dtype).removeprefix("torch.")


@both
def test_strides_and_offsets_of_a_view_are_followed(is_zip: bool, tmp_path: Path) -> None:
    path = tmp_path / "head.pth"
    pool = torch.randn(2 * D, 3 * K, generator=torch.Generator().manual_seed(3))
    view = pool[1::2, K : 2 * K].T
    assert not view.is_contiguous()
    save_torch(path, {"prototypes": view}, is_zip=is_zip)
    np.testing.assert_array_equal(load_prototypes(path).rows, view.numpy())


@both
def test_files_of_numpy_1_are_read(is_zip: bool, tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    numbers = [np.float64(0.1), np.float32(2), np.int64(3), np.bool_(True), np.uint8(4)]
    args = argparse.Namespace(lr=np.float64(0.5), crops=[1, 2])
    save_torch(path, {"teacher": head(), "schedule": numbers, "args": args}, is_zip=is_zip)
    new, old = b"numpy._core.multiarray", b"numpy.core.multiarray"
    if is_zip:
        rewrite_zip(path, lambda _, content: content.replace(new, old))
    else:
        path.write_bytes(path.read_bytes().replace(new, old))
    np.testing.assert_array_equal(load_prototypes(path).rows, WEIGHT.numpy())


def test_the_allow_list_is_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "head.pth"
    save_torch(path, {"teacher": head(), "args": argparse.Namespace()})
    find_heads(path)  # torch itself lists classes of modules that a first load imports
    before = set(torch.serialization.get_safe_globals())
    find_heads(path)
    assert set(torch.serialization.get_safe_globals()) == before
    assert argparse.Namespace not in before


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8", "<f2"])
def test_a_numpy_matrix_is_a_head(order: Any, dtype: str, tmp_path: Path) -> None:
    matrix = np.asarray(WEIGHT.numpy(), dtype=dtype, order=order)
    np.save(tmp_path / "w.npy", matrix)
    np.savez(tmp_path / "w.npz", my_head=matrix, labels=np.arange(5), names=np.array(["a"]))
    np.savez_compressed(tmp_path / "packed.npz", my_head=matrix)
    for name, expected in (
        ("w.npy", "prototypes"),
        ("w.npz", "my_head"),
        ("packed.npz", "my_head"),
    ):
        loaded = load_prototypes(tmp_path / name)
        np.testing.assert_array_equal(loaded.rows, matrix.astype("f8"))
        assert (loaded.name, loaded.branch) == (expected, None)


def test_a_single_safetensors_matrix_is_a_head(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"codebook": WEIGHT}, path)
    assert load_prototypes(path).name == "codebook"


@pytest.mark.parametrize("load", [load_prototypes, load_heads])
def test_several_numpy_matrices_need_a_choice(load: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    np.savez(path, features=np.ones((3, 4)), weight=WEIGHT.numpy())
    with pytest.raises(CheckpointError, match=r"2 matrices.*Choose a head: features, weight"):
        load(path)
    np.testing.assert_array_equal(load_prototypes(path, head="weight").rows, WEIGHT.numpy())


def test_a_matrix_called_prototypes_needs_no_choice(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    np.savez(path, features=np.ones((3, 4)), prototypes=WEIGHT.numpy())
    assert load_prototypes(path).name == "prototypes"


# --- sizes, permissions, imports -----------------------------------------------------------------


def test_a_file_that_may_not_be_opened_is_a_source_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "secret.pth"
    save_torch(path, {"teacher": head()})

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root may open everything, so chmod is no test
    with pytest.raises(SourceError, match=r"cannot be opened \(Permission denied\)\. Check"):
        find_heads(path)


def test_bad_prototypes_are_reported_with_their_file(tmp_path: Path) -> None:
    path = tmp_path / "zero.npy"
    np.save(path, np.zeros((3, 4), dtype="f4"))
    with pytest.raises(PrototypeError, match=r"zero\.npy: prototypes: 3 of 3 prototypes are all"):
        load_prototypes(path)


def test_half_a_weight_norm_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "half.pth"
    save_torch(path, {"teacher": {"head.last_layer.weight_v": WEIGHT}})
    with pytest.raises(CheckpointError, match="without its scale"):
        find_heads(path)


@pytest.mark.parametrize("name", ["safetensors", "npy", "npz"])
def test_numpy_containers_do_not_import_torch(name: str, tmp_path: Path) -> None:
    path = tmp_path / "head"
    path.write_bytes(GOOD_FILES[name])
    code = (
        "import sys; from collapse_audit.checkpoints import describe, load_prototypes\n"
        f"describe({str(path)!r}); assert load_prototypes({str(path)!r}).k == {K}\n"
        "heavy = {'torch', 'sklearn', 'pandas', 'matplotlib', 'timm', 'scipy'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_large_file_is_read_without_its_backbone(tmp_path: Path) -> None:
    path = tmp_path / "large.pth"
    backbone = {f"backbone.{i}.weight": torch.ones(2500, 10_000) for i in range(3)}
    save_torch(path, {"teacher": backbone | head()})
    assert path.stat().st_size > 300e6
    small = tmp_path / "small.pth"
    save_torch(small, {"teacher": head()})
    code = (
        "import resource; from collapse_audit.checkpoints import describe, load_prototypes\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"load_prototypes({str(small)!r}); before = peak()\n"
        f"assert describe({str(path)!r}).size > 3e8\n"
        f"assert load_prototypes({str(path)!r}).k == {K}\n"
        "print((peak() - before) / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 100


def test_describe_reads_no_values(tmp_path: Path) -> None:
    path = tmp_path / "nan.pth"
    save_torch(path, {"teacher": head(torch.full((K, D), float("nan")))})
    assert describe(path).heads[0].k == K
