"""What an audit of a large file costs: no torch, and the memory of its head, here or elsewhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

K, D = 8192, 256
HEAD_BYTES = 4 * K * (D + 1)
FILE_BYTES = 400_000_000
HEAVY = ("torch", "pandas", "matplotlib", "timm", "sklearn", "requests", "fsspec", "torchvision")
# the peak of this process alone: that of getrusage counts the parent that forked it
MAIN = """
import re, sys
from pathlib import Path
from collapse_audit.cli import main
code = main(sys.argv[1:])
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
print(f"peak {int(peak) * 1024}", file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture(scope="module")
def large_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = torch.Generator().manual_seed(0)
    unique = torch.randn(400, D, generator=generator)
    rows = unique[torch.randint(400, (K,), generator=generator)]
    backbone = torch.zeros((FILE_BYTES - rows.nbytes) // 4)
    path = tmp_path_factory.mktemp("large") / "checkpoint.pth"
    teacher = {
        "head.last_layer.weight_v": rows,
        "head.last_layer.weight_g": torch.ones(K, 1),
        "backbone.blocks.0.mlp.fc1.weight": backbone.view(-1, 4),
    }
    torch.save({"teacher": teacher, "epoch": 1}, path)
    assert path.stat().st_size > 0.99 * FILE_BYTES
    return path


def audit(*arguments: str, python: tuple[str, ...] = ()) -> tuple[Any, str]:
    command = [sys.executable, *python, "-c", MAIN, "audit", "--json", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
    return json.loads(done.stdout), done.stderr


def test_an_audit_of_a_large_file_imports_nothing_heavy(large_file: Path) -> None:
    report, told = audit(str(large_file), python=("-X", "importtime"))
    assert report["heads"][0]["unique"]["greedy"] == 400
    imported = {line.rpartition("|")[2].strip() for line in told.splitlines() if "|" in line}
    assert "numpy" in imported
    assert imported.isdisjoint(HEAVY)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the peak there")
@pytest.mark.parametrize("place", ["here", "elsewhere"])
def test_its_memory_is_that_of_the_head(
    large_file: Path, server: Any, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLLAPSE_AUDIT_OFFLINE", raising=False)
    arguments = [str(large_file)]
    if place == "elsewhere":
        server.files["checkpoint.pth"] = large_file.read_bytes()
        arguments = [server.url("checkpoint.pth"), "--insecure-http", "--cache-dir", str(tmp_path)]
    report, told = audit(*arguments)
    assert report["heads"][0]["unique"]["greedy"] == 400
    (peak,) = re.findall(r"peak (\d+)", told)
    assert int(peak) < 4 * HEAD_BYTES + 150_000_000
    if place == "elsewhere":
        assert server.sent < 1.05 * HEAD_BYTES + 1_000_000
        assert server.connections <= 4
