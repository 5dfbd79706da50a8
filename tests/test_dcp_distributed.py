"""Checkpoints of two ranks, as torch.distributed.checkpoint writes them: gathered bit for bit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from collapse_audit.containers.byte_source import LocalFile
from collapse_audit.sources import resolve_source

# 97 prototypes on two ranks: the shards are uneven
WRITER = """
import os, sys
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

rank, folder, style = int(sys.argv[1]), sys.argv[2], sys.argv[3]
os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": sys.argv[4], "RANK": str(rank),
               "WORLD_SIZE": "2"}
dist.init_process_group("gloo", rank=rank, world_size=2)
mesh = init_device_mesh("cpu", (2,))
torch.manual_seed(0)

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(512, 4096)
        self.dino_head = nn.ModuleDict({"mlp": nn.Sequential(nn.Linear(16, 16)),
                                        "last_layer": nn.Linear(16, 97, bias=False)})

networks = {name: Network() for name in ("student", "teacher")}
whole = {name: network.dino_head["last_layer"].weight.detach().clone()
         for name, network in networks.items()}
for network in networks.values():
    fully_shard(network, mesh=mesh)
model = {f"{name}.{key}": tensor for name, network in networks.items()
         for key, tensor in network.state_dict().items()}
model["replicated"] = torch.arange(12.0)
state = {"model": model, "optimizer": {"state": {}}, "iteration": 7}
if style == "dcp":
    dcp.save(state, checkpoint_id=folder)
elif style == "safetensors":
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    dcp.save(model, storage_writer=HuggingFaceStorageWriter(path=folder, save_distributed=True))
else:
    torch.save(model, os.path.join(folder, f"rank{rank}.pth"))
if rank == 0:
    torch.save(whole, folder + "-whole.pth")
dist.barrier()
dist.destroy_process_group()
"""


def write(folder: Path, style: str, port: int) -> dict[str, torch.Tensor]:
    folder.mkdir()
    command = [sys.executable, "-W", "ignore", "-c", WRITER]
    ranks = [
        subprocess.Popen([*command, str(rank), str(folder), style, str(port)]) for rank in range(2)
    ]
    assert [rank.wait(timeout=1200) for rank in ranks] == [0, 0]
    whole: dict[str, torch.Tensor] = torch.load(f"{folder}-whole.pth", weights_only=True)
    return whole


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def bytes_read(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    counted = {"n": 0}
    read = LocalFile.read

    def counting(self: LocalFile, start: int, n: int) -> bytes:
        counted["n"] += n
        return read(self, start, n)

    monkeypatch.setattr(LocalFile, "read", counting)
    return counted


@pytest.mark.slow
@pytest.mark.parametrize("style", ["dcp", "safetensors"])
def test_a_head_of_two_ranks_is_gathered_bit_for_bit_for_a_small_part_of_the_bytes(
    tmp_path: Path, style: str, free_port: int, bytes_read: dict[str, int]
) -> None:
    folder = tmp_path / "1249"
    whole = write(folder, style, free_port)
    size = sum(path.stat().st_size for path in folder.iterdir())
    resolved = resolve_source(folder)
    for branch in ("teacher", "student"):
        bytes_read["n"] = 0
        (head,) = resolved.load(resolved.select(branch=branch, head=None))  # type: ignore[arg-type]
        assert (head.name, head.k, head.d, head.branch) == ("dino_head", 97, 16, branch)
        torch.testing.assert_close(torch.tensor(head.rows), whole[branch], rtol=0, atol=0)
        assert bytes_read["n"] < 0.05 * size
    replicated = next(
        t for key, t in resolved.checkpoint.tensors.items() if key.endswith("replicated")
    )
    assert replicated.read().tolist() == list(range(12))


@pytest.mark.slow
def test_one_rank_of_a_plain_save_is_refused_and_told_what_it_is(
    tmp_path: Path, free_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    from collapse_audit.cli import main

    write(tmp_path / "run", "plain", free_port)
    assert main(["audit", str(tmp_path / "run" / "rank0.pth"), "--json"]) == 2
    out: Any = json.loads(capsys.readouterr().out)
    assert "DTensor" in out["error"]["message"]
    assert "torch.distributed.checkpoint" in out["error"]["hint"]
