"""The monitor on two ranks: whole weights (DDP), sharded ones (FSDP2), and what goes wrong on one.

A rank that waits for another that never comes is stopped by the time limit of the process group,
and fails its test. Every scenario prints one line of JSON for each rank.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from collapse_audit.monitor import PrototypeMonitor
from collapse_audit.monitor.weights import WatchedHead
from tests.two_ranks import on_two_ranks

pytestmark = pytest.mark.filterwarnings("ignore")

K = 97  # on two ranks: the shards are uneven

RANK = f"""
import copy, weakref
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from collapse_audit.monitor import PrototypeMonitor

mesh = init_device_mesh("cpu", (2,))
alarms, seen = [], []

class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.mlp = nn.Linear(24, 16)
        layer = nn.Linear(16, {K}, bias=False)
        self.last_layer = nn.utils.parametrizations.weight_norm(layer)
        with torch.no_grad():
            layer.parametrizations.weight.original1[60:80] = (
                layer.parametrizations.weight.original1[3])

    def forward(self, x):
        return self.last_layer(nn.functional.normalize(self.mlp(x), dim=1))

torch.manual_seed(0)
student = Head()
teacher = copy.deepcopy(student)

def shard():
    for network in (student, teacher):
        fully_shard(network.last_layer, mesh=mesh)
        fully_shard(network, mesh=mesh)

def watch(head, **options):
    return PrototypeMonitor(head, **{{"every": 4, "on_alarm": alarms.append}} | options)

def train(monitor, model, steps, start=0, shown=lambda step: {{}}):
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(rank)
    for step in range(start, start + steps):
        x = torch.randn(8, 24, generator=generator)
        loss = nn.functional.cross_entropy(model(x) / 0.1, torch.arange(8))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            for slow, fast in zip(teacher.parameters(), model.parameters()):
                slow.lerp_(fast, 0.1)
        seen.append(monitor.step(**{{"loss": loss}} | shown(step)))

def answer(**more):
    looks = [s.to_dict() for s in seen if s is not None]
    print(json.dumps({{"rank": rank, "looks": looks, "steps": len(seen),
                      "alarms": [[a.step, a.kind, a.message] for a in alarms], **more}}))

def number_of_unique(weight):
    from collapse_audit import Prototypes, audit_prototypes
    return audit_prototypes(Prototypes.from_weight(weight), sweep=False, nearest=False).num_unique

"""


@pytest.fixture
def ranks(tmp_path: Path) -> Callable[[str], list[dict[str, Any]]]:
    """Run a scenario under torchrun on two ranks; what each of them printed."""

    def run(scenario: str) -> list[dict[str, Any]]:
        return on_two_ranks(tmp_path, RANK + scenario + "\nanswer()\n")

    return run


@pytest.mark.slow
def test_under_ddp_rank_0_looks_and_the_wrapped_head_is_found(ranks: Any) -> None:
    first, second = ranks("""
model = DistributedDataParallel(student)
train(watch(teacher, student=model, log_to="watch.csv" if rank == 0 else None), model, 9)
""")
    assert [look["step"] for look in first["looks"]] == [0, 4, 8]
    assert first["looks"][0]["unique"]["greedy"] == K - 20
    assert (second["looks"], second["alarms"], second["steps"]) == ([], [], 9)


@pytest.mark.slow
def test_sharded_heads_are_counted_as_the_whole_ones_with_one_copy_at_a_time(ranks: Any) -> None:
    first, second = ranks("""
import time
kept, twice, gather = [], [], DTensor.full_tensor
def some_alive():
    # gloo's own thread may hold what it gathered for a moment longer than the caller
    until = time.monotonic() + 10
    while any(reference() is not None for reference in kept) and time.monotonic() < until:
        time.sleep(0.001)
    return any(reference() is not None for reference in kept)
def full_tensor(self, **options):
    if self.shape[1] > 1 and some_alive():
        twice.append(len(kept))  # an error in here would only become an alarm
    whole = gather(self, **options)
    if self.shape[1] > 1:
        kept.append(weakref.ref(whole.untyped_storage()))
        kept.append(weakref.ref(whole))
    return whole
DTensor.full_tensor = full_tensor
shard()
train(watch(teacher, student=student), student, 9)
DTensor.full_tensor = gather
assert not twice, "two whole copies of a head at once"
assert not some_alive()
assert len(kept) == 2 * 2 * 3
weight = student.last_layer.parametrizations.weight.original1
assert isinstance(weight, DTensor)
found = number_of_unique(weight.full_tensor())
assert rank or seen[8].student.num_unique == found
""")
    assert [look["step"] for look in first["looks"]] == [0, 4, 8]
    assert first["looks"][0]["unique"]["greedy"] == K - 20
    assert first["looks"][0]["student"]["unique"]["greedy"] == K - 20
    assert 0.9 < first["looks"][2]["student_cosine"] < 1
    assert first["alarms"][0][1] == "unique_fraction"
    assert (second["looks"], second["alarms"], second["steps"]) == ([], [], 9)


@pytest.mark.slow
@pytest.mark.parametrize(
    "head", ["student", "lambda: student.last_layer.parametrizations.weight.original1"]
)
def test_a_rank_that_resumed_at_another_step_looks_when_rank_0_does(ranks: Any, head: str) -> None:
    first, second = ranks(f"""
shard()
monitor = watch({head}, every=4 if rank == 0 else 6)
train(monitor, student, 9, start=10 - 3 * rank, shown=lambda step: {{"step": step}})
""")
    assert [look["step"] for look in first["looks"]] == [12, 16]
    assert second["steps"] == 9


@pytest.mark.slow
def test_what_fails_on_one_rank_keeps_no_other_waiting(ranks: Any) -> None:
    first, second = ranks("""
from collapse_audit.monitor import prototype_monitor
shard()
def teacher_weight():
    if rank == 1 and len(seen) == 4:
        raise RuntimeError("only here")
    return teacher.last_layer.parametrizations.weight.original1
def fails_at_8(numbers, step):
    if step == 8:
        raise ConnectionError("no route to host")
def centre():
    if len(seen) == 12 and rank == 0:
        raise RuntimeError("no centre")
    return torch.zeros(97)
def shown(step):
    if step == 16 and rank == 1:
        with torch.no_grad():
            student.last_layer.parametrizations.weight.original1.to_local()[0] = float("nan")
    return {"loss": float("nan")} if rank == 1 else {}
work = prototype_monitor.IncrementalCover.look
def look(self, stored):
    if len(seen) == 20:
        raise MemoryError("too much")
    return work(self, stored)
prototype_monitor.IncrementalCover.look = look
monitor = watch(teacher_weight, student=student, centre=centre, log_to=fails_at_8, temperature=0.1)
train(monitor, student, 25, shown=shown)
dist.barrier()
""")
    assert [look["step"] for look in first["looks"]] == [0, 8]
    found = [(step, kind) for step, kind, _ in first["alarms"]]
    assert found == [
        (0, "unique_fraction"),
        (4, "not_auditable"),
        (8, "not_written"),
        (12, "not_auditable"),  # and until the end: at 16 the weights hold NaN
    ]
    messages = [message for _, kind, message in first["alarms"] if kind == "not_auditable"]
    assert messages == ["step 4: the head cannot be read on another rank.", "step 12: no centre"]
    assert (second["looks"], second["alarms"], second["steps"]) == ([], [], 25)


# --- heads in wrapped models ---------------------------------------------------------------------


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(4, 8)
        self.head = nn.ModuleDict({"last_layer": nn.Linear(8, 12, bias=False)})


class Wrapper(nn.Module):
    """As DDP has a model: as ``module``, and without its attributes."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


WRAPPED: dict[str, Callable[[Model], nn.Module]] = {
    "compiled": torch.compile,  # type: ignore[dict-item, return-value, unused-ignore]
    "compiled layer": lambda model: torch.compile(model.head["last_layer"]),  # type: ignore[dict-item, return-value, unused-ignore]
    "DDP": Wrapper,
    "DDP of a layer": lambda model: Wrapper(model.head["last_layer"]),
    "DDP of a compiled model": lambda model: Wrapper(torch.compile(model)),  # type: ignore[arg-type, unused-ignore]
}


@pytest.mark.parametrize("wrapped", WRAPPED)
def test_the_head_is_found_in_a_wrapped_model(wrapped: str) -> None:
    model = Model()
    found, scale = WatchedHead(WRAPPED[wrapped](model)).gather()
    assert (found.data_ptr(), scale) == (model.head["last_layer"].weight.data_ptr(), None)


def test_a_layer_that_is_compiled_inside_of_a_model_is_one_head() -> None:
    model = Model()
    model.head["last_layer"] = torch.compile(model.head["last_layer"])  # type: ignore[assignment, unused-ignore]
    seen = PrototypeMonitor(model, every=1).step()
    assert seen is not None
    assert seen.k == 12
