"""One state dict in every container: the same heads and the same prototypes, bit for bit."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch.distributed import checkpoint as dcp

from collapse_audit.prototypes import Prototypes
from collapse_audit.remote.settings import RemoteSettings
from collapse_audit.sources import resolve_source
from tests.small_checkpoints import rezipped, saved

State = dict[str, torch.Tensor]


def _sharded(state: State, folder: Path) -> Path:
    """Each tensor in a file of its own."""
    where = {}
    for i, (key, tensor) in enumerate(state.items()):
        name = f"model-{i:05}-of-{len(state):05}.safetensors"
        save_file({key: tensor}, folder / name)
        where[key] = name
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": where}))
    return path


def _distributed(state: State, folder: Path) -> Path:
    with warnings.catch_warnings(action="ignore"):
        dcp.save(dict(state), checkpoint_id=folder / "dcp", no_dist=True)
    return folder / "dcp"


def _file(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def _npz(state: State, *, packed: bool = False) -> bytes:
    buffer = io.BytesIO()
    save = np.savez_compressed if packed else np.savez
    save(buffer, **{key: tensor.numpy() for key, tensor in state.items()})
    return buffer.getvalue()


def _safetensors(state: State, folder: Path) -> Path:
    save_file(state, folder / "x.safetensors")
    return folder / "x.safetensors"


WRITERS: dict[str, Callable[[State, Path], Path]] = {
    "zip": lambda state, folder: _file("x.pth", saved(state))(folder),
    "legacy": lambda state, folder: _file("x.tar", saved(state, is_zip=False))(folder),
    "deflated": lambda state, folder: _file(
        "x.zip.pth", rezipped(saved(state), compression=zipfile.ZIP_DEFLATED)
    )(folder),
    "safetensors": _safetensors,
    "sharded": _sharded,
    "distributed": _distributed,
    "npz": lambda state, folder: _file("x.npz", _npz(state))(folder),
    "packed npz": lambda state, folder: _file("p.npz", _npz(state, packed=True))(folder),
}
NUMPY = {"npz", "packed npz"}  # have no bfloat16


def outcome(source: Path | str, **options: Any) -> list[tuple[Any, ...]]:
    """Everything that is known of each head, its values as bytes."""
    resolved = resolve_source(source, **options)

    def facts(prototypes: Prototypes) -> tuple[Any, ...]:
        p = prototypes
        values = (p.rows, p.norms, p.bias)
        exact = tuple(None if v is None else (v.dtype.str, v.shape, v.tobytes()) for v in values)
        return p.name, p.branch, p.dtype, p.tensor_keys, p.tensor_sha256, exact

    return sorted(map(facts, resolved.load(resolved.heads)), key=lambda fact: str(fact[:4]))


def layer(
    draw: Callable[[Any], Any], module: str, kind: str, dtype: torch.dtype, seed: int
) -> State:
    k, d = draw(st.integers(2, 9)), draw(st.integers(1, 7))
    generator = torch.Generator().manual_seed(seed)

    def made(*shape: int) -> torch.Tensor:
        return (torch.randn(*shape, generator=generator) + 3).to(dtype)

    old, new = "weight_{}", "parametrizations.weight.original{}"
    return {
        "plain": {f"{module}.weight": made(max(k, d), d)},
        "biased": {f"{module}.weight": made(k, d), f"{module}.bias": made(k)},
        "normed": {f"{module}.{old.format(p)}": made(k, w) for p, w in (("g", 1), ("v", d))},
        "new": {f"{module}.{new.format(p)}": made(k, w) for p, w in ((0, 1), (1, d))},
        "raw": {f"{module}": made(max(k, d), d)},
    }[kind]


@st.composite
def states(draw: Callable[[Any], Any]) -> tuple[State, torch.dtype]:
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]))
    state: State = {"backbone.blocks.0.weight": torch.ones(5, 3), "steps": torch.tensor(7)}
    names = draw(
        st.lists(
            st.sampled_from(
                ["teacher.head.last_layer", "student.head.last_layer", "prototypes.prototypes0",
                 "teacher.head.last_layer2", "module.prototypes.prototypes1", "prototypes"]
            ),
            min_size=1, max_size=4, unique=True,
        )
    )  # fmt: skip
    for seed, name in enumerate(names):
        kind = draw(st.sampled_from(["plain", "biased", "normed", "new", "raw"]))
        state |= layer(draw, name, kind, dtype, seed)
    return state, dtype


@given(drawn=states())
@settings(max_examples=40)
def test_every_container_gives_the_same_heads_bit_for_bit(
    drawn: tuple[State, torch.dtype], tmp_path_factory: pytest.TempPathFactory
) -> None:
    state, dtype = drawn
    found = {}
    for name, write in WRITERS.items():
        if name not in NUMPY or dtype != torch.bfloat16:
            found[name] = outcome(write(state, tmp_path_factory.mktemp("x")))
    expected = found.pop("zip")
    assert expected
    for name, other in found.items():
        assert other == expected, name


def test_every_container_of_one_file_gives_the_same_at_an_address(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLLAPSE_AUDIT_OFFLINE")
    state = {
        "teacher.head.last_layer.weight_v": torch.randn(50, 8).bfloat16(),
        "teacher.head.last_layer.weight_g": torch.ones(50, 1).bfloat16(),
        "backbone.w": torch.ones(200, 300),
    }
    settings = RemoteSettings(cache_dir=tmp_path / "cache", insecure_http=True)
    expected = outcome(WRITERS["zip"](state, tmp_path))
    for name, write in WRITERS.items():
        if name in NUMPY:
            continue
        (tmp_path / name).mkdir()
        path = write(state, tmp_path / name)
        for file in path.iterdir() if path.is_dir() else path.parent.iterdir():
            server.files[f"{name}/{file.name}"] = file.read_bytes()
        asked = ".metadata" if path.is_dir() else path.name
        url = server.url(f"{name}/{asked}")
        assert outcome(url, settings=settings) == expected, name
