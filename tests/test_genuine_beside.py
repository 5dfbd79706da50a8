"""Genuine files with something unusual beside or in the head: read, or said."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save as save_safetensors

from collapse_audit.containers.opening import read_path
from collapse_audit.errors import CollapseAuditError
from collapse_audit.remote.reporting import SILENT
from collapse_audit.remote.settings import RemoteSettings
from collapse_audit.sources import ResolvedSource, resolve_source
from tests.fuzz_files import saved

Answer = dict[str, Any]
HEAD = torch.randn(24, 8, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def both(server: Any, tmp_path: Path) -> Callable[[str, bytes], Answer]:
    """What a file answers from disk, which must be what it answers at an address."""
    settings = RemoteSettings(cache_dir=tmp_path / "cache", insecure_http=True, retries=0)

    def answer(source: str) -> Answer:
        try:
            resolved: ResolvedSource = resolve_source(source, settings=settings, reporter=SILENT)
            chosen = resolved.select(branch="teacher", head=None)
            loaded = resolved.load(chosen)
        except CollapseAuditError as error:
            return {"error": str(error).partition(": ")[2]}
        return {
            "heads": {p.name: p.unit_rows().tobytes() for p in loaded},
            "keys": tuple(resolved.checkpoint.tensors),
            "notes": loaded[0].notes,
        }

    def ask(name: str, data: bytes) -> Answer:
        (tmp_path / name).write_bytes(data)
        asked = f"{len(server.files)}-{name}"  # the cache never gives another file at an address
        server.files[asked] = data
        here = answer(str(tmp_path / name))
        assert here == answer(server.url(asked))
        return here

    return ask


OTHERS = {
    "uint64": torch.ones(3, dtype=torch.uint64), "uint32": torch.ones(3, dtype=torch.uint32),
    "uint16": torch.ones(3, dtype=torch.uint16), "complex64": torch.ones(3, dtype=torch.complex64),
    "complex128": torch.ones(3, dtype=torch.complex128),
    "float8_e4m3fn": torch.ones(3, 3).to(torch.float8_e4m3fn),
    "float8_e5m2": torch.ones(3, 3).to(torch.float8_e5m2),
}  # fmt: skip


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        (dtype, kind)
        for kind in ("zip", "legacy", "safetensors")
        for dtype in OTHERS
        if (dtype, kind) != ("complex128", "safetensors")  # safetensors has no such type
    ],
)
def test_other_types_beside_the_weights_leave_the_head_and_are_read_or_said(
    both: Callable[[str, bytes], Answer], dtype: str, kind: str
) -> None:
    state = {"prototypes.weight": HEAD, "beside": OTHERS[dtype], "bias": torch.ones(2)}
    data = (
        save_safetensors(state)
        if kind == "safetensors"
        else saved(state, _use_new_zipfile_serialization=kind == "zip")
    )
    found = both(f"a.{kind}", data)
    assert found["heads"]["prototypes"]
    assert ("beside" in found["keys"]) or "tensors of" in " ".join(found["notes"])


FLOAT8 = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")


@pytest.mark.parametrize("dtype", FLOAT8)
def test_all_256_codes_of_float8_are_read_as_torch_reads_them(tmp_path: Path, dtype: str) -> None:
    codes = torch.arange(256, dtype=torch.uint8).view(getattr(torch, dtype))
    state = {"codes": codes}
    files = (
        saved(state),
        saved(state, _use_new_zipfile_serialization=False),
        save_safetensors(state),
    )
    for data in files:
        (tmp_path / "a").write_bytes(data)
        found = read_path(tmp_path / "a", "a").tensors["codes"]
        assert found.dtype == dtype
        np.testing.assert_array_equal(found.read(), codes.float().numpy(), strict=True)


@pytest.mark.parametrize("dtype", FLOAT8)
def test_a_head_in_float8_is_read(both: Callable[[str, bytes], Answer], dtype: str) -> None:
    weight = HEAD.to(getattr(torch, dtype))
    expected = both("a.pth", saved({"prototypes.weight": weight.float()}))
    state = {"prototypes.weight": weight, "prototypes.weight_scale": torch.tensor(0.03)}
    for name, data in (("b.pth", saved(state)), ("b.safetensors", save_safetensors(state))):
        found = both(name, data)
        assert found["heads"] == expected["heads"]
        assert found["notes"] == ()  # one scalar turns no prototype


@pytest.mark.parametrize(
    "scale", ["prototypes.weight_scale", "prototypes.weight_scale_inv", "prototypes.scale_weight"]
)
def test_a_scale_that_is_not_applied_is_said(
    both: Callable[[str, bytes], Answer], scale: str
) -> None:
    weight = HEAD.to(torch.float8_e4m3fn)
    state = {"prototypes.weight": weight, scale: torch.ones(24, 2), "prototypes.input_scale": HEAD}
    (note,) = both("a.pth", saved(state))["notes"]
    assert note.startswith(f"the scale {scale} beside the float8 weight is not applied")
    plain = both("b.pth", saved(state | {"prototypes.weight": HEAD}))
    assert plain["notes"] == ()


class Elsewhere:
    """A tensor of a device whose values torch writes as a numpy array."""

    def __init__(self, values: np.ndarray, dtype: torch.dtype) -> None:
        self.made = torch._utils._rebuild_device_tensor_from_numpy, (values, dtype, "cpu", False)

    def __reduce__(self) -> Any:
        return self.made


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
@pytest.mark.parametrize(
    "dtype", ["float64", "float32", "float16", "bfloat16", "int64", "uint8", "bool"]
)
def test_a_tensor_of_a_device_is_read_as_torch_reads_it(
    tmp_path: Path, protocol: int, dtype: str
) -> None:
    kind = getattr(torch, dtype)
    for held in (HEAD, HEAD.t(), HEAD[:0], HEAD[0, 0]):
        values = held.to(kind).float().numpy() if dtype == "bfloat16" else held.to(kind).numpy()
        state = {"prototypes.weight": Elsewhere(values, kind)}
        torch.save(state, tmp_path / "a.pth", pickle_protocol=protocol)
        theirs = torch.load(tmp_path / "a.pth", weights_only=False)["prototypes.weight"]
        ours = read_path(tmp_path / "a.pth", "a").tensors["prototypes.weight"]
        assert ours.dtype == dtype
        expected = (theirs.float() if dtype == "bfloat16" else theirs).numpy()
        np.testing.assert_array_equal(ours.read(), expected, strict=True)


def test_a_head_that_is_a_tensor_of_a_device_is_read(both: Callable[[str, bytes], Answer]) -> None:
    elsewhere = Elsewhere(HEAD.numpy(), torch.float32)
    found = both("a.pth", saved({"prototypes.weight": elsewhere, "bias": torch.ones(2)}))
    assert found == both("b.pth", saved({"prototypes.weight": HEAD, "bias": torch.ones(2)}))
    other = Elsewhere(HEAD.numpy(), torch.float64)  # torch converts it when it reads
    beside = both("c.pth", saved({"prototypes.weight": HEAD, "other": other}))
    assert "_rebuild_device_tensor_from_numpy" in " ".join(beside["notes"])
    assert "_rebuild_device_tensor" in both("d.pth", saved({"prototypes.weight": other}))["error"]


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_every_pickle_protocol_is_read(
    both: Callable[[str, bytes], Answer], protocol: int, *, zipped: bool
) -> None:
    how = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": zipped}
    state = {"teacher": {"module.prototypes.weight": HEAD}, "epoch": 7}
    assert both("a.pth", saved(state, **how)) == both("b.pth", saved(state))


@pytest.mark.parametrize("length", [10, 200, 201, 450, 1001, 5000, 1_000_000])
def test_a_head_under_a_long_key_does_not_vanish(
    both: Callable[[str, bytes], Answer], length: int
) -> None:
    states = {f"{'x' * length}{n}.prototypes.weight": HEAD + n for n in range(2)}
    for name, data in (("a.pth", saved(states)), ("a.safetensors", save_safetensors(states))):
        found = both(name, data)
        assert len(found["keys"]) == 2
        assert all(len(key) <= 1000 for key in found["keys"])
        assert len(found["heads"]) == 2


def test_keys_that_look_alike_are_kept_apart(both: Callable[[str, bytes], Answer]) -> None:
    for seed in range(100):
        draw = random.Random(seed)
        alike: list[Any] = draw.sample(
            [1, "1", b"1", "b'1'", "1#2", None, "None", "a\n", r"a\n"], 5
        )
        state = {key: {"prototypes.weight": HEAD + n} for n, key in enumerate(alike)}
        found = both("a.pth", saved(state))
        assert len(found["keys"]) == len(alike)
        assert len(set(found["heads"].values())) == len(alike)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_compressed_npz_answers_alike(both: Callable[[str, bytes], Answer], dtype: str) -> None:
    for seed in range(10):
        values = np.random.default_rng(seed).normal(size=(40, 6)).astype(dtype)
        files = io.BytesIO(), io.BytesIO()
        np.savez_compressed(files[0], prototypes=values)
        np.savez(files[1], prototypes=values)
        packed, plain = (both(f"{n}.npz", file.getvalue()) for n, file in enumerate(files))
        assert packed["heads"] == plain["heads"]
