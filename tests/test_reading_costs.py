"""What the audit of one head of a large checkpoint costs: modules, memory, bytes, connections."""

from __future__ import annotations

import json
import mmap
import os
import pickle
import re
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fuzz_programs import MAGIC
from tests.hostile_files import items, storage, tensor, text

K, D, UNIQUE = 8192, 256, 3000
HEAD_BYTES = 4 * K * D
BLOCKS, BLOCK = 24, 4 * 1024 * 1024  # the rest of the network: 24 matrices of 16 MiB
HEAVY = {
    "torch",
    "torchvision",
    "pandas",
    "matplotlib",
    "timm",
    "sklearn",
    "requests",
    "fsspec",
    "scipy.stats",
}

CHILD = """
import re, sys
from pathlib import Path
from collapse_audit.cli import main
code = main(sys.argv[1:])
# not getrusage: its peak counts the parent that forked this process
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
print(int(peak) * 1024, file=sys.stderr)
sys.exit(code)
"""


def head() -> bytes:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((UNIQUE, D), dtype=np.float32)
    return rows[np.concatenate([np.arange(UNIQUE), rng.integers(0, UNIQUE, K - UNIQUE)])].tobytes()


def program(more: bytes = b"") -> bytes:
    """A state dict whose prototypes lie in the middle of it."""
    pairs = []
    for i in range(BLOCKS):
        if i == BLOCKS // 2:
            values = storage("head", numel=K * D, more=more)
            pairs.append((text("head.last_layer.weight"), tensor((K, D), (D, 1), values)))
        key, values = f"backbone.blocks.{i}.mlp.fc1.weight", storage(f"{i}", numel=BLOCK, more=more)
        pairs.append((text(key), tensor((2048, 2048), (2048, 1), values)))
    return items(*pairs)


def write_zip(path: Path) -> None:
    """As torch.save writes it, but the blocks are holes that take no space on the disk."""
    directory = []
    with path.open("wb") as file:

        def add(name: str, data: bytes, size: int) -> None:
            stored = "archive/" + name
            extra = -(file.tell() + 30 + len(stored) + 4) % 64  # values begin at a multiple of 64
            info = zipfile.ZipInfo(stored)
            info.file_size = info.compress_size = size
            info.CRC, info.header_offset = zlib.crc32(data) if data else 0, file.tell()
            info.extra = struct.pack("<2sH", b"FB", extra) + b"Z" * extra
            directory.append(info)
            file.write(info.FileHeader())
            file.write(data)
            file.seek(info.header_offset + len(info.FileHeader()) + size)

        index = program()
        add("data.pkl", index, len(index))
        add("byteorder", b"little", 6)
        for i in range(BLOCKS):
            if i == BLOCKS // 2:
                add("data/head", head(), HEAD_BYTES)
            add(f"data/{i}", b"", 4 * BLOCK)
        add("version", b"3\n", 2)
        archive = zipfile.ZipFile(file, "w")
        archive.filelist = directory
        archive.start_dir = file.tell()
        archive._didModify = True
        archive.close()


def write_legacy(path: Path) -> None:
    """As torch.save wrote it before version 1.6, with holes too."""
    keys = [f"{i}" for i in range(BLOCKS)]
    keys.insert(BLOCKS // 2, "head")
    with path.open("wb") as file:
        for value in (MAGIC, 1001, {"little_endian": True}):
            file.write(pickle.dumps(value, 2))
        file.write(program(b"N") + pickle.dumps(keys, 2))
        for key in keys:
            file.write(struct.pack("<Q", K * D if key == "head" else BLOCK))
            if key == "head":
                file.write(head())
            else:
                file.seek(4 * BLOCK, os.SEEK_CUR)
        file.truncate()


@pytest.fixture(scope="module", params=["zip", "legacy"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / f"{request.param}.pth"
    (write_zip if request.param == "zip" else write_legacy)(path)
    assert path.stat().st_size > 400_000_000
    return path


@pytest.fixture
def url(checkpoint: Path, server: Any) -> Iterator[str]:
    with (
        checkpoint.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        server.files[checkpoint.name] = data
        yield server.url(checkpoint.name)


def audit(*arguments: str) -> tuple[dict[str, Any], int]:
    """The report of a process of its own, and the most memory that it had."""
    environment = {k: v for k, v in os.environ.items() if k != "COLLAPSE_AUDIT_OFFLINE"}
    command = [sys.executable, "-c", CHILD, "audit", *arguments, "--quiet", "--format", "json"]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=1200, env=environment
    )
    return json.loads(done.stdout), int(done.stderr)


linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the peak")


def test_an_audit_imports_nothing_heavy(checkpoint: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "collapse_audit", "audit", str(checkpoint)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=1200)
    modules = set(re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert "collapse_audit.containers.index_machine" in modules
    assert modules & HEAVY == set()


@linux
def test_an_audit_from_the_disk_needs_little_memory(checkpoint: Path) -> None:
    report, peak = audit(str(checkpoint))
    assert report["heads"][0]["unique"]["greedy"] == UNIQUE
    assert report["source"]["sha256"]
    assert peak < 4 * HEAD_BYTES + 150_000_000


@linux
@pytest.mark.slow
def test_an_audit_from_an_address_needs_little_of_everything(
    checkpoint: Path, url: str, server: Any, tmp_path: Path
) -> None:
    arguments = (url, "--insecure-http", "--cache-dir", str(tmp_path / "cache"))
    report, peak = audit(*arguments)
    assert report["heads"][0]["unique"]["greedy"] == UNIQUE
    assert peak < 4 * HEAD_BYTES + 150_000_000
    assert server.sent < 1.05 * HEAD_BYTES + 1_000_000
    assert server.connections <= 4
    server.forget()
    for more in ([], ["--offline"]):
        assert audit(*arguments, *more)[0]["heads"] == report["heads"]
    assert server.requests == []
    here, _ = audit(str(checkpoint))
    assert here["heads"] == report["heads"]
