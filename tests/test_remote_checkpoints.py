"""Heads of remote files: the same as of local ones, for a fraction of the bytes."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from collapse_audit.checkpoints.remote import load_remote_heads, read_remote_checkpoint

from collapse_audit.audit import audit_prototypes
from collapse_audit.checkpoints import find_heads, load_heads
from collapse_audit.errors import (
    CheckpointError,
    CollapseAuditError,
    IntegrityError,
    UnsafePickleError,
)
from collapse_audit.remote import (
    SILENT,
    RemoteSettings,
    Reporter,
    remote_of_url,
)


@pytest.fixture
def settings(tmp_path: Path) -> RemoteSettings:
    return RemoteSettings(
        cache_dir=tmp_path / "cache",
        insecure_http=True,
        stall_seconds=2,
        limit_seconds=30,
        retries=3,
        backoff_seconds=0.01,
        lock_path=tmp_path / "collapse_audit.lock",
    )


def offline(settings: RemoteSettings) -> RemoteSettings:
    return dataclasses.replace(settings, offline=True)


def serve(server: Any, data: bytes, name: str = "checkpoint.pth") -> Any:
    server.files[name] = data
    return remote_of_url(server.url(name))


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


def test_a_head_of_a_full_checkpoint_costs_little_more_than_the_head(
    server: Any, settings: RemoteSettings, large_dino: bytes, tmp_path: Path
) -> None:
    remote = serve(server, large_dino)
    (head,) = load_remote_heads(remote, settings, reporter=SILENT)
    head_bytes = 8192 * 256 * 4
    assert len(large_dino) > 6 * head_bytes
    assert server.sent < 1.05 * head_bytes + 1_000_000
    (local,) = local_heads(tmp_path, large_dino)
    counts = [audit_prototypes(p, sweep=False, nearest=False).num_unique for p in (head, local)]
    assert counts == [200, 200]
    assert_same_heads([head], [local])


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


def test_a_legacy_container_is_downloaded_whole_and_then_read_offline(
    server: Any,
    settings: RemoteSettings,
    legacy_dino: bytes,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    remote = serve(server, legacy_dino)
    expected = local_heads(tmp_path, legacy_dino)
    assert_same_heads(load_remote_heads(remote, settings, reporter=Reporter(bars=False)), expected)
    assert "cannot be read in parts" in capsys.readouterr().err
    assert_same_heads(load_remote_heads(remote, offline(settings), reporter=SILENT), expected)


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


def zip_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def with_index(index: bytes) -> bytes:
    return zip_of({"archive/data.pkl": index, "archive/data/0": bytes(64)})


TENSOR = (
    b"\x80\x02}X\x11\x00\x00\x00prototypes.weightctorch._utils\n_rebuild_tensor_v2\n"
    b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x10tQ"
    b"%s%s%s\x89)tR s."
).replace(b" s.", b"s.")


def tensor_index(offset: bytes, shape: bytes, strides: bytes) -> bytes:
    return TENSOR % (offset, shape, strides)


V = b"K\x04K\x04\x86"  # shape 4 x 4, the whole storage
STEPS = b"K\x04K\x01\x86"
HUGE = b"\x8a\x08" + (2**50).to_bytes(8, "little")


@pytest.mark.parametrize(
    ("index", "error", "message"),
    [
        (b"\x80\x02cposix\nsystem\nU\x04trueq\x00\x85R.", UnsafePickleError, "posix.system"),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93)R.", UnsafePickleError, "posix.system"),
        (b"\x80\x02(cos\nsystem\nX\x04\x00\x00\x00trueo.", UnsafePickleError, "os.system"),
        (b"(iposix\nsystem\n.", UnsafePickleError, "operation INST"),
        (b"\x80\x02}}b.", None, ""),
        (b"\x80\x02]}b.", UnsafePickleError, "sets the state"),
        (b"\x80\x02K\x01)R.", UnsafePickleError, "calls something"),
        (b"\x80\x02\x82\x01.", UnsafePickleError, "operation EXT1"),
        (b"\x80\x02K\x01", CheckpointError, "index is damaged"),
        (b"\x80\x02" + b"0" * 5 + b".", CheckpointError, "index is damaged"),
        (b"\x80\x02" + b"K\x01" * 1_600_000 + b".", CheckpointError, "operations"),
        (b"\x80\x02j\xff\xff\xff\xff.", CheckpointError, "index is damaged"),
        (b"\x80\x02K\x01r\xff\xff\xff\xff.", None, ""),
        (b"\x80\x02)" + b"\x85" * 100_000 + b".", None, ""),
        (tensor_index(b"K\x00", V, STEPS), None, ""),
        (tensor_index(b"K\x01", V, STEPS), CheckpointError, "only 64"),
        (tensor_index(HUGE, V, STEPS), CheckpointError, "only 64"),
        (tensor_index(b"K\x00", HUGE + HUGE + b"\x86", STEPS), CheckpointError, "only 64"),
        (tensor_index(b"K\x00", HUGE + HUGE + b"\x86", b"K\x00K\x00\x86"),
         CheckpointError, "only 64"),
        (tensor_index(b"K\x00", V, HUGE + HUGE + b"\x86"), CheckpointError, "only 64"),
        (tensor_index(b"J\xff\xff\xff\xff", V, STEPS), CheckpointError, "damaged"),
    ],
)  # fmt: skip
def test_a_hostile_index_runs_nothing_and_is_refused_in_words(
    server: Any,
    settings: RemoteSettings,
    index: bytes,
    error: type[Exception] | None,
    message: str,
) -> None:
    remote = serve(server, with_index(index))

    def read_all() -> None:
        for tensor in read_remote_checkpoint(remote, settings, SILENT).tensors.values():
            tensor.read()

    if error is None:
        read_all()
        return
    with pytest.raises(error, match=message):
        read_all()


def test_nested_tuples_as_keys_do_not_hang_the_reader(
    server: Any, settings: RemoteSettings
) -> None:
    bomb = b"\x80\x02})q\x00" + b"h\x00\x86q\x00" * 60 + b"K\x01s."
    checkpoint = read_remote_checkpoint(serve(server, with_index(bomb)), settings, SILENT)
    assert checkpoint.tensors == {}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a/data.pkl", b"\x80\x02}."), ("a/data.pkl", b"\x80\x02}.")], "more than once"),
        ([("../../etc/data.pkl", tensor_index(b"K\x00", V, STEPS))],
         "storage that the file does not hold"),
        ([("a/data.pkl", b"\x80\x02" + bytes(17 * 1024**2))], "declares 17.8 MB"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_tricks_with_zip_members_are_refused(
    server: Any, settings: RemoteSettings, members: list[tuple[str, bytes]], message: str
) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members:
            archive.writestr(name, data)
    remote = serve(server, buffer.getvalue())
    with pytest.raises(CheckpointError, match=message):
        read_remote_checkpoint(remote, settings, SILENT)


def test_a_deflated_bomb_is_refused_before_it_is_unpacked(
    server: Any, settings: RemoteSettings
) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(60_000_000))
    with pytest.raises(CheckpointError, match="is compressed"):
        read_remote_checkpoint(serve(server, buffer.getvalue()), settings, SILENT)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the peak there")
def test_a_remote_audit_needs_little_memory(
    server: Any, settings: RemoteSettings, large_dino: bytes
) -> None:
    serve(server, large_dino)
    code = (
        "import re, sys\n"
        "from pathlib import Path\n"
        "from collapse_audit.audit import audit_prototypes\n"
        "from collapse_audit.checkpoints.remote import load_remote_heads\n"
        "from collapse_audit.remote import RemoteSettings, remote_of_url, SILENT\n"
        "settings = RemoteSettings(cache_dir=Path(sys.argv[1]), insecure_http=True)\n"
        "(p,) = load_remote_heads(remote_of_url(sys.argv[2]), settings, reporter=SILENT)\n"
        "m = audit_prototypes(p, sweep=False, nearest=False).num_unique\n"
        # not getrusage: its peak counts the parent that forked this process
        "peak = re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]\n"
        "print(m, int(peak) * 1024)\n"
    )
    arguments = [sys.executable, "-c", code, str(settings.cache_dir), server.url("checkpoint.pth")]
    out = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.split()
    assert int(out[0]) == 200
    assert int(out[1]) < 4 * 8192 * 256 * 4 + 300_000_000


def test_local_paths_still_need_no_network(tmp_path: Path, small_dino: bytes) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(small_dino)
    assert len(find_heads(path)) == 2
