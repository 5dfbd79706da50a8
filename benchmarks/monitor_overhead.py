"""What the monitor costs a training: a look against a hundred steps, in one run.

    python benchmarks/monitor_overhead.py [--ranks 2] [K ...]

The step is that of a DINO head alone (three-layer MLP, weight-normed last layer, cross-entropy of
two views, AdamW); a backbone would only make it longer and the share of the monitor smaller. With
ranks it is measured under DDP and under FSDP2 (gloo), where a look gathers the head first.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
from statistics import median
from time import perf_counter
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from collapse_audit.head_audit import audit_prototypes
from collapse_audit.monitor import Observation, PrototypeMonitor
from collapse_audit.prototypes import Prototypes

EVERY, BATCH, D = 100, 64, 256
STEPS, LOOKS = 5, 8


class Head(nn.Module):
    """DINO's head on features of a ViT-S."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            *(nn.Linear(384, 2048), nn.GELU(), nn.Linear(2048, 2048), nn.GELU(), nn.Linear(2048, D))
        )
        self.last_layer = nn.utils.parametrizations.weight_norm(nn.Linear(D, k, bias=False))

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.last_layer(nn.functional.normalize(self.mlp(features), dim=1))
        return logits


def measure(k: int, kind: str = "one process") -> dict[str, float | int | str]:
    """Times of a step, of a full look and of the looks after it, on this rank."""
    torch.manual_seed(0)
    student = Head(k)
    teacher = copy.deepcopy(student)
    model: nn.Module = student
    if kind == "ddp":
        model = DistributedDataParallel(student)
    elif kind == "fsdp2":
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        for network in (student, teacher):
            fully_shard(network, mesh=mesh, reshard_after_forward=True)
    optimiser = torch.optim.AdamW(student.parameters(), lr=5e-4)

    def step() -> float:
        started = perf_counter()
        one, two = torch.randn(2, BATCH, 384)
        with torch.no_grad():
            target = (teacher(one) / 0.04).softmax(1)
        loss = nn.functional.cross_entropy(model(two) / 0.1, target)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        with torch.no_grad():
            for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
                slow.lerp_(fast, 0.004)
        return perf_counter() - started

    def look() -> tuple[float, Observation | None]:
        """One look, the monitors here look at every step; all ranks begin it together."""
        if dist.is_initialized():
            dist.barrier()
        started = perf_counter()
        seen = monitor.step()
        return perf_counter() - started, seen

    step()
    monitor = PrototypeMonitor(student, every=1)
    first, _ = look()
    steps, looks, compared = [], [], []
    for _ in range(LOOKS):
        steps += [step() for _ in range(STEPS)]
        seconds, seen = look()
        looks.append(seconds)
        compared.append(0 if seen is None else seen.head.compared)
    weight: Any = student.last_layer.parametrizations.weight.original1.detach()
    whole = weight.full_tensor() if kind == "fsdp2" else weight
    audit = audit_prototypes(Prototypes.from_weight(whole), sweep=False, nearest=False)
    if seen is not None and audit.num_unique != seen.head.num_unique:
        raise RuntimeError("the monitor counts what the audit does not")
    return {
        "kind": kind,
        "k": k,
        "step_s": median(steps),
        "full_look_s": first,
        "look_s": median(looks),
        "compared": max(compared),
        "overhead": median(looks) / (EVERY * median(steps)),
        "steps_to_repay_full_look_at_1_percent": round(first / (0.01 * median(steps))),
    }


def measure_on_rank(rank: int, ranks: int, ks: list[int]) -> None:
    """All measurements of one rank; the first prints its own, for the others wait for it."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // ranks))
    dist.init_process_group("gloo", rank=rank, world_size=ranks)
    for k in ks:
        for kind in ("ddp", "fsdp2"):
            found = measure(k, kind)
            if rank == 0:
                print(json.dumps(found | {"ranks": ranks}), flush=True)
            dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    """Measure for each K that was asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("ks", type=int, nargs="*", default=[8192, 65536])
    given = parser.parse_args()
    if given.ranks == 1:
        for k in given.ks:
            print(json.dumps(measure(k)), flush=True)
    else:
        ranks = (given.ranks, given.ks)
        spawn(measure_on_rank, ranks, nprocs=given.ranks)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
