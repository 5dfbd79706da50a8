"""What the monitor costs a training: a look against a hundred steps, in one run.

    python benchmarks/monitor_overhead.py [K ...]

The step is that of a DINO head alone (three-layer MLP, weight-normed last layer, cross-entropy of
two views, AdamW); a backbone would only make it longer and the share of the monitor smaller.
"""

from __future__ import annotations

import copy
import json
import sys
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn

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


def look(monitor: PrototypeMonitor) -> Observation:
    """One look; the monitors here look at every step."""
    seen = monitor.step()
    if seen is None:
        raise RuntimeError("the monitor did not look")
    return seen


def measure(k: int) -> dict[str, float | int]:
    """Times of a step, of a full look and of the looks after it."""
    torch.manual_seed(0)
    student = Head(k)
    teacher = copy.deepcopy(student)
    optimiser = torch.optim.AdamW(student.parameters(), lr=5e-4)

    def step() -> float:
        started = perf_counter()
        one, two = torch.randn(2, BATCH, 384)
        with torch.no_grad():
            target = (teacher(one) / 0.04).softmax(1)
        loss = nn.functional.cross_entropy(student(two) / 0.1, target)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        with torch.no_grad():
            for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
                slow.lerp_(fast, 0.004)
        return perf_counter() - started

    step()
    monitor = PrototypeMonitor(student, every=1)
    first = look(monitor)
    steps, looks, compared = [], [], []
    for _ in range(LOOKS):
        steps += [step() for _ in range(STEPS)]
        seen = look(monitor)
        looks.append(seen.seconds)
        compared.append(seen.head.compared)
    weight = student.last_layer.parametrizations.weight.original1.detach()
    audit = audit_prototypes(Prototypes.from_weight(weight), sweep=False, nearest=False)
    assert audit.num_unique == seen.head.num_unique
    return {
        "k": k,
        "step_s": median(steps),
        "full_look_s": first.seconds,
        "look_s": median(looks),
        "compared": max(compared),
        "overhead": median(looks) / (EVERY * median(steps)),
        "steps_to_repay_full_look_at_1_percent": round(first.seconds / (0.01 * median(steps))),
    }


if __name__ == "__main__":
    for argument in sys.argv[1:] or ("8192", "65536"):
        print(json.dumps(measure(int(argument))), flush=True)
