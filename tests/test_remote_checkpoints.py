"""Heads of remote files: the same as of local ones, for a fraction of the bytes."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from collapse_audit.containers.tensors import Checkpoint
from collapse_audit.errors import (
    CollapseAuditError,
    IntegrityError,
)
from collapse_audit.head_audit import audit_prototypes
from collapse_audit.remote.reporting import SILENT, Reporter
from collapse_audit.remote.settings import RemoteSettings
from collapse_audit.sources import ResolvedSource, load_heads, resolve_source
from tests.loopback_server import offline, serve


def resolved(remote: Any, settings: RemoteSettings, reporter: Reporter) -> ResolvedSource:
    return resolve_source(remote.urls[0], settings=settings, reporter=reporter)


def load_remote_heads(remote: Any, settings: RemoteSettings, reporter: Reporter = SILENT) -> Any:
    source = resolved(remote, settings, reporter)
    return source.load(source.select(branch="teacher", head=None))


def read_remote_checkpoint(remote: Any, settings: RemoteSettings, reporter: Reporter) -> Checkpoint:
    return resolved(remote, settings, reporter).checkpoint


def assert_same_heads(remote: Any, local: Any) -> None:
    assert [(p.name, p.branch, p.k, p.d, p.dtype, p.tensor_keys) for p in remote] == [
        (p.name, p.branch, p.k, p.d, p.dtype, p.tensor_keys) for p in local
    ]
    for here, there in zip(remote, local, strict=True):
        np.testing.assert_array_equal(here.unit_rows(slice(None)), there.unit_rows(slice(None)))


def local_heads(tmp_path: Path, data: bytes, name: str = "local.pth") -> Any:
    path = tmp_path / name
    path.write_bytes(data)
    return load_heads(path)


@pytest.mark.parametrize("container", ["zip", "legacy"])
def test_a_head_of_a_full_checkpoint_costs_little_more_than_the_head(
    server: Any, settings: RemoteSettings, large_dino: bytes, tmp_path: Path, container: str
) -> None:
    data = large_dino
    if container == "legacy":
        buffer = io.BytesIO()
        state = torch.load(io.BytesIO(data), weights_only=False)
        torch.save(state, buffer, _use_new_zipfile_serialization=False)
        data = buffer.getvalue()
    remote = serve(server, data)
    (head,) = load_remote_heads(remote, settings)
    head_bytes = 8192 * 256 * 4
    assert len(data) > 6 * head_bytes
    assert server.sent < 1.05 * head_bytes + 1_000_000
    assert server.connections <= 4
    (local,) = local_heads(tmp_path, data)
    counts = [audit_prototypes(p, sweep=False, nearest=False).num_unique for p in (head, local)]
    assert counts == [200, 200]
    assert_same_heads([head], [local])
    assert head.tensor_sha256 == local.tensor_sha256


def test_the_next_audit_needs_no_network(
    server: Any, settings: RemoteSettings, small_dino: bytes
) -> None:
    remote = serve(server, small_dino)
    first = load_remote_heads(remote, settings, reporter=SILENT)
    server.forget()
    assert_same_heads(load_remote_heads(remote, offline(settings), reporter=SILENT), first)
    assert_same_heads(load_remote_heads(remote, settings, reporter=SILENT), first)
    assert server.requests == []


@pytest.mark.parametrize("ranges", ["ignored", "shifted", "false"])
def test_a_server_without_true_ranges_costs_the_whole_file_and_says_so_first(  # noqa: PLR0917
    server: Any,
    settings: RemoteSettings,
    small_dino: bytes,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    ranges: str,
) -> None:
    server.ranges = ranges
    remote = serve(server, small_dino)
    heads = load_remote_heads(remote, settings, reporter=Reporter(bars=False))
    assert_same_heads(heads, local_heads(tmp_path, small_dino))
    assert f"downloading the whole file, {len(small_dino) / 1e6:.1f} MB" in capsys.readouterr().err


def test_a_legacy_container_is_read_in_parts_and_then_offline(
    server: Any, settings: RemoteSettings, legacy_dino: bytes, tmp_path: Path
) -> None:
    remote = serve(server, legacy_dino)
    expected = local_heads(tmp_path, legacy_dino)
    assert_same_heads(load_remote_heads(remote, settings), expected)
    server.forget()
    assert_same_heads(load_remote_heads(remote, offline(settings)), expected)
    assert server.requests == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_remote_safetensors_give_header_and_tensor_only(
    server: Any, settings: RemoteSettings, tmp_path: Path, dtype: torch.dtype
) -> None:
    weight = torch.randn(512, 32, generator=torch.Generator().manual_seed(1)).to(dtype)
    data = safetensors.torch.save(
        {"last_layer.weight": weight, "mlp.0.weight": torch.zeros(1024, 512)}
    )
    remote = serve(server, data, "head.safetensors")
    heads = load_remote_heads(remote, settings, reporter=SILENT)
    assert_same_heads(heads, local_heads(tmp_path, data, "head.safetensors"))
    assert server.sent < weight.nbytes + 150_000 < len(data)


def test_every_genuine_file_gives_the_same_heads_or_the_same_kind_of_error(
    server: Any, settings: RemoteSettings, shared_checkpoints: Path
) -> None:
    def outcome(load: Any) -> Any:
        try:
            return load()
        except CollapseAuditError as error:
            return type(error)

    compared = 0
    for path in sorted(shared_checkpoints.glob("*.*")):
        unlike = path.name.startswith(("broken_html", "broken_zero")) or path.suffix in {
            ".md",
            ".json",
            ".npz",
        }
        if unlike:
            continue
        remote = serve(server, path.read_bytes(), path.name)
        here = outcome(lambda path=path: load_heads(path))
        there = outcome(lambda remote=remote: load_remote_heads(remote, settings, reporter=SILENT))
        if isinstance(here, type):
            assert there is here, path.name
        else:
            assert_same_heads(there, here)
        compared += 1
    assert compared > 20


def test_offsets_are_those_that_torch_itself_reports(
    server: Any, settings: RemoteSettings, small_dino: bytes
) -> None:
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode(), torch.serialization.safe_globals(allowed_globals()):
        fake = torch.load(io.BytesIO(small_dino), weights_only=True)
    expected = {
        f"teacher/{key}": tensor.untyped_storage()._checkpoint_offset
        for key, tensor in fake["teacher"].items()
    }
    checkpoint = read_remote_checkpoint(serve(server, small_dino), settings, SILENT)
    for key, offset in expected.items():
        tensor = checkpoint.tensors[key]
        raw = np.asarray(tensor.read()).tobytes()
        assert small_dino[offset : offset + len(raw)] == raw


def allowed_globals() -> list[Any]:
    import argparse
    from _codecs import encode

    scalar = np.float64(0).__reduce__()[0]
    return [argparse.Namespace, np.dtype, type(np.dtype("float64")), scalar, encode]


def test_views_and_strides_are_read_as_torch_reads_them(
    server: Any, settings: RemoteSettings, tmp_path: Path
) -> None:
    base = torch.randn(40, 30, generator=torch.Generator().manual_seed(2))
    for name, view in {
        "transposed": base.t(),
        "cut": base[3:20, 4:9],
        "every third": base[::3],
        "one column": base[:, 5:7],
    }.items():
        buffer = io.BytesIO()
        torch.save({"prototypes.weight": view, "other": base[0]}, buffer)
        remote = serve(server, buffer.getvalue(), f"{name.replace(' ', '_')}.pth")
        heads = load_remote_heads(remote, settings, reporter=SILENT)
        assert_same_heads(heads, local_heads(tmp_path, buffer.getvalue()))


def test_a_file_that_changed_since_the_first_fetch_is_refused_with_both_hashes(
    server: Any, settings: RemoteSettings, genuine_files: ModuleType
) -> None:
    remote = serve(server, genuine_files.dino_checkpoint())
    load_remote_heads(remote, settings, reporter=SILENT)
    recorded = json.loads(settings.lock_file.read_text())["sources"][remote.lock_key]
    elsewhere = dataclasses.replace(settings, cache_dir=settings.cache_dir / "second")
    serve(server, genuine_files.dino_checkpoint(teacher_unique=21))
    with pytest.raises(IntegrityError, match="when it was fetched first") as caught:
        load_remote_heads(remote, elsewhere, reporter=SILENT)
    old = recorded["tensor:teacher/head.last_layer.weight_v"]
    assert old in caught.value.message
    assert len(set(caught.value.message.split()) - {old}) > 3


def test_files_saved_without_checksums_are_read(
    server: Any, settings: RemoteSettings, genuine_files: ModuleType, tmp_path: Path
) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        data = genuine_files.dino_checkpoint()
    finally:
        torch.serialization.set_crc32_options(True)
    heads = load_remote_heads(serve(server, data), settings, reporter=SILENT)
    assert_same_heads(heads, local_heads(tmp_path, data))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the peak there")
def test_a_remote_audit_needs_little_memory(
    server: Any, settings: RemoteSettings, large_dino: bytes
) -> None:
    serve(server, large_dino)
    code = (
        "import re, sys\n"
        "from pathlib import Path\n"
        "from collapse_audit.head_audit import audit_prototypes\n"
        "from collapse_audit.remote.settings import RemoteSettings\n"
        "from collapse_audit.sources import resolve_source\n"
        "settings = RemoteSettings(cache_dir=Path(sys.argv[1]), insecure_http=True)\n"
        "source = resolve_source(sys.argv[2], settings=settings)\n"
        "(p,) = source.load(source.select(branch='teacher', head=None))\n"
        "m = audit_prototypes(p, sweep=False, nearest=False).num_unique\n"
        # not getrusage: its peak counts the parent that forked this process
        "peak = re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]\n"
        "print(m, int(peak) * 1024)\n"
    )
    arguments = [sys.executable, "-c", code, str(settings.cache_dir), server.url("checkpoint.pth")]
    out = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.split()
    assert int(out[0]) == 200
    assert int(out[1]) < 4 * 8192 * 256 * 4 + 150_000_000


def test_local_paths_still_need_no_network(tmp_path: Path, small_dino: bytes) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(small_dino)
    assert len(resolve_source(path).heads) == 2
