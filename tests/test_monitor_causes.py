"""Why a loss stays at ln K: every cause planted, in a training that is watched and in a file."""

from __future__ import annotations

import copy
import json
import math
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from collapse_audit.checkpoints.causes import centre_dominates
from collapse_audit.cli import main
from collapse_audit.monitor import Alarm, PrototypeMonitor

K, D = 16, 8


class Head(nn.Module):
    """DINO's, with ``norm_last_layer``."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.Linear(D, K, bias=False)
        self.last_layer = nn.utils.parametrizations.weight_norm(layer)
        self.scale.data.fill_(1)
        self.scale.requires_grad_(False)

    @property
    def scale(self) -> Tensor:
        found: Tensor = self.last_layer.parametrizations.weight.original0
        return found

    @property
    def direction(self) -> Tensor:
        found: Tensor = self.last_layer.parametrizations.weight.original1
        return found

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.last_layer(nn.functional.normalize(features, dim=1))
        return logits


class Training:
    """A few steps of self-distillation, into which a fault is planted."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.student = Head()
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.centre = torch.zeros(1, K)
        self.temperature, self.trains, self.loss = 0.04, True, 1.0

    def kinds(self, steps: int = 4) -> list[str]:
        raised: list[Alarm] = []
        monitor = PrototypeMonitor(
            self.teacher, student=self.student, every=1, temperature=self.temperature,
            centre=lambda: self.centre, on_alarm=raised.append,
        )  # fmt: skip
        for _ in range(steps):
            if self.trains:
                with torch.no_grad():
                    self.student.direction.add_(0.01 * torch.randn(K, D))
                    if self.teacher is not self.student:
                        self.teacher.direction.lerp_(self.student.direction, 0.1)
            monitor.step(loss=self.loss, logits=self.teacher(torch.randn(32, D)))
        assert all(alarm.message.startswith(f"step {alarm.step}: ") for alarm in raised)
        return [alarm.kind for alarm in raised]


def one_storage(training: Training) -> None:
    training.teacher = training.student


def one_layer(training: Training) -> None:
    training.teacher.last_layer = training.student.last_layer


def frozen(training: Training) -> None:
    training.trains, training.loss = False, math.log(K)


def all_equal(training: Training) -> None:
    training.teacher.direction[:] = training.teacher.direction[3]
    training.student.direction.data[:] = training.student.direction[3]


def not_finite(training: Training) -> None:
    training.centre[0, 5] = math.inf


def summed_over_ranks(training: Training) -> None:
    training.centre = 8 * torch.full((1, K), 0.2)


def as_weight_norm_made_it(training: Training) -> None:
    training.student.scale.data.copy_(training.student.direction.norm(dim=1, keepdim=True))


def hot_teacher(training: Training) -> None:
    training.temperature = 40.0


CAUSES: dict[Callable[[Training], None], list[str]] = {
    one_storage: ["one_storage"],
    one_layer: ["one_storage"],
    frozen: ["loss_is_ln_k", "frozen"],
    all_equal: ["unique_fraction", "unique_fraction", "all_equal", "targets_uniform"],
    not_finite: ["centre_not_finite", "no_mlcd"],
    summed_over_ranks: ["centre_dominates"],
    as_weight_norm_made_it: ["scale_not_one"],
    hot_teacher: ["targets_uniform"],
}


@pytest.mark.parametrize("plant", CAUSES, ids=lambda plant: plant.__name__)
def test_a_planted_cause_is_named_once(plant: Callable[[Training], None]) -> None:
    training = Training()
    plant(training)
    kinds = training.kinds()
    assert kinds == CAUSES[plant]


def test_a_sound_training_has_no_cause_to_tell() -> None:
    assert Training().kinds() == []


@pytest.mark.parametrize("loss", [1.0, None])
def test_a_last_layer_that_is_frozen_on_purpose_is_no_cause_while_the_loss_falls(
    loss: float | None,
) -> None:
    training = Training()
    training.trains, training.loss = False, loss  # type: ignore[assignment]
    assert training.kinds() == []


def test_a_centre_is_a_mean_of_logits_so_it_is_no_longer_than_the_longest_prototype() -> None:
    weight = torch.randn(K, D)
    logits = nn.functional.normalize(torch.randn(500, D), dim=1) @ weight.T
    norms = weight.norm(dim=1)
    assert centre_dominates(logits.mean(0).numpy(), float(norms.max())) is None
    alone = (nn.functional.normalize(weight, dim=1) @ weight.T).diagonal()  # the extreme case
    assert centre_dominates(alone.numpy(), float(norms.max())) is None
    assert "reaches" in str(centre_dominates(1.01 * alone.numpy(), float(norms.max())))


# --- in files ------------------------------------------------------------------------------------


def saved(path: Path, **changes: Any) -> Path:
    """A checkpoint of ``main_dino.py`` after its third epoch."""
    teacher = {
        "head.last_layer.weight_g": torch.ones(K, 1),
        "head.last_layer.weight_v": torch.randn(K, D),
    }
    state: dict[str, Any] = {
        "teacher": teacher,
        "student": {f"module.{key}": value.clone() for key, value in teacher.items()},
        "epoch": 3,
        "args": Namespace(norm_last_layer=True, freeze_last_layer=1),
        "dino_loss": {"center": torch.full((1, K), 0.1)},
    }
    torch.save(state | changes, path)
    return path


def moments(*shapes: tuple[int, ...]) -> dict[str, Any]:
    """The state of an Adam, by number and not by name."""
    state = {i: {"step": 9, "exp_avg": torch.ones(shape)} for i, shape in enumerate(shapes)}
    return {"optimizer": {"state": state, "param_groups": [{"lr": 0.1}]}}


BACKBONE = {"module.backbone.fc.weight": torch.ones(D, 5), "module.backbone.fc.bias": torch.ones(D)}
LAYER = {
    "module.head.last_layer.weight_g": torch.ones(K, 1),
    "module.head.last_layer.weight_v": torch.randn(K, D),
}
IN_FILES: dict[str, tuple[dict[str, Any], str]] = {
    "frozen": (
        {"args": Namespace(freeze_last_layer=3)},
        "the last layer is frozen until now: freeze_last_layer is 3, and the file is of epoch 3",
    ),
    "not_optimised": (
        {"student": BACKBONE | LAYER} | moments((D, 5), (D,)),
        "student/module.head.last_layer.weight_v: the optimiser has a state of other matrices, and",
    ),
    "scale_not_one": (
        {"student": {"module.head.last_layer.weight_g": torch.full((K, 1), 0.5),
                     "module.head.last_layer.weight_v": torch.randn(K, D)}},
        "student/module.head.last_layer.weight_g: weight_g is fixed, but not at 1: 16 of 16",
    ),
    "centre_not_finite": (
        {"dino_loss": {"center": torch.full((1, K), torch.nan)}},
        "dino_loss/center: the centre is not finite in 16 of 16 places",
    ),
    "centre_dominates": (
        {"dino_loss": {"center": torch.full((1, K), 1.6)}},
        "dino_loss/center: the centre dominates: it reaches 1.6, and a logit of a unit feature at",
    ),
}  # fmt: skip


@pytest.mark.parametrize("planted", IN_FILES)
def test_info_names_what_a_checkpoint_tells(
    planted: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, expected = IN_FILES[planted]
    assert main(["info", str(saved(tmp_path / "checkpoint.pth", **changes))]) == 0
    (note,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert expected in note


def test_info_of_a_sound_checkpoint_has_no_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", str(saved(tmp_path / "checkpoint.pth"))]) == 0
    assert "note" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "state",
    [
        moments((D, 5), (D,), (K, D)),
        moments(),  # of a plain SGD
        moments((K * D + D * 5,)),  # of FSDP, flat
        moments((D, 1), (5, 1)),  # factored
    ],
)
def test_an_optimiser_that_has_the_last_layer_or_does_not_tell_gets_no_note(
    state: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = saved(tmp_path / "checkpoint.pth", student=BACKBONE | LAYER, **state)
    assert main(["info", str(file)]) == 0
    assert "note" not in capsys.readouterr().out


def test_the_state_that_torch_saves_of_a_frozen_last_layer_is_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = nn.ModuleDict({"backbone": nn.Linear(5, D), "head": Head()})
    optimiser = torch.optim.AdamW(network.parameters())
    for frozen in (True, False):
        network["head"](network["backbone"](torch.randn(4, 5))).logsumexp(1).sum().backward()
        if frozen:  # as cancel_gradients_last_layer does
            network["head"].direction.grad = None
        optimiser.step()
        optimiser.zero_grad()
        changes = {"student": network.state_dict(), "optimizer": optimiser.state_dict()}
        assert main(["info", str(saved(tmp_path / "checkpoint.pth", **changes))]) == 0
        assert ("none of the last layer" in capsys.readouterr().out) == frozen


def test_an_audit_says_that_all_prototypes_are_equal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = {
        "head.last_layer.weight_g": torch.ones(K, 1),
        "head.last_layer.weight_v": torch.ones(K, D) + 1e-4 * torch.randn(K, D),
    }
    file = saved(tmp_path / "checkpoint.pth", teacher=weights)
    assert main(["audit", str(file), "--json"]) == 0
    (head,) = json.loads(capsys.readouterr().out)["heads"]
    assert head["unique"]["greedy"] == 1
    assert any(note.startswith("all prototypes point one way") for note in head["notes"])
    assert main(["audit", str(saved(file)), "--json"]) == 0
    assert "point one way" not in capsys.readouterr().out


def test_a_scale_that_was_trained_is_no_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, _ = IN_FILES["scale_not_one"]
    free = Namespace(norm_last_layer=False, freeze_last_layer=1)
    assert main(["info", str(saved(tmp_path / "checkpoint.pth", **changes, args=free))]) == 0
    assert "note" not in capsys.readouterr().out
