"""The monitor: exact counts on the incremental path, alarms, logs, adapters, a real training."""

from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from collapse_audit.errors import CollapseAuditError, CollapseAuditWarning, ParameterError
from collapse_audit.head_audit import audit_prototypes
from collapse_audit.monitor import (
    Alarm,
    PrototypeMonitor,
    lightning_callback,
    trainer_callback,
)
from collapse_audit.monitor.incremental import IncrementalCover
from collapse_audit.prototypes import Prototypes
from tests.stand_ins import stand_in


def random_weight(k: int, d: int = 32, seed: int = 0) -> Tensor:
    return torch.randn(k, d, generator=torch.Generator().manual_seed(seed))


# --- the incremental path ------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.sampled_from([0.001, 0.02, 0.1, 0.3]), st.integers(0, 30))
def test_every_look_counts_exactly_what_an_audit_counts(
    seed: int, noise: float, drawn_together: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(60, 8, generator=generator)
    cover = IncrementalCover(0.05)
    for _ in range(5):
        counted = cover.look((weight, None))
        prototypes = Prototypes.from_weight(weight.numpy().copy())
        audit = audit_prototypes(prototypes, epsilon=0.05, sweep=False, nearest=False)
        assert counted.num_unique == audit.num_unique
        assert counted.components == audit.redundancy.components
        assert counted.largest == audit.redundancy_factors[0]
        assert sorted(np.bincount(counted.groups)) == sorted(audit.redundancy_factors)
        same = counted.groups[:, None] == counted.groups[None, :]
        np.testing.assert_array_equal(same, audit.groups[:, None] == audit.groups[None, :])
        weight += noise * torch.randn(weight.shape, generator=generator)
        weight[:drawn_together] += 0.5 * (weight[59] - weight[:drawn_together])


def test_a_look_after_a_small_step_compares_nothing_anew() -> None:
    weight, cover = random_weight(512, 64), IncrementalCover(0.025)
    assert cover.look((weight, None)).compared == 512
    weight += 0.01 * random_weight(512, 64, seed=1)
    counted = cover.look((weight, None))
    assert (counted.compared, counted.num_unique, counted.nearest_cosine) == (0, 512, None)


def test_a_head_that_stays_collapsed_is_not_searched_again_as_a_whole() -> None:
    weight, cover = random_weight(512, 64), IncrementalCover(0.025)
    weight[384:] = weight[256:384]
    cover.look((weight, None))
    weight[300] = random_weight(1, 64, seed=2)[0]
    counted = cover.look((weight, None))
    assert counted.nearest_cosine is not None, "one prototype that jumps far leaves all others open"
    weight += 0.01 * random_weight(512, 64, seed=3)
    counted = cover.look((weight, None))
    assert (counted.compared, counted.num_unique, counted.nearest_cosine) == (254, 385, None)


def test_how_far_prototypes_turned_is_the_angle_between_two_looks() -> None:
    weight = torch.eye(4)
    monitor = PrototypeMonitor(weight, every=1)
    assert monitor.step().head.turned_max is None  # type: ignore[union-attr]
    angle = math.radians(10)
    weight[0] = torch.tensor([math.cos(angle), math.sin(angle), 0, 0]) * 3
    for expected in (10, 0):
        seen = monitor.step()
        assert seen is not None
        assert seen.head.turned_max == pytest.approx(expected, abs=1e-4)
        assert seen.head.turned_mean == pytest.approx(expected / 4, abs=1e-4)


# --- what can be watched -------------------------------------------------------------------------


class Head(nn.Module):
    """The shape of a DINO head."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.mlp = nn.Linear(16, 8)
        self.last_layer = layer


def build(name: str) -> Any:
    """A head with 12 prototypes, in each form that the monitor takes."""
    from torch.nn.utils import parametrizations, weight_norm

    layer = nn.Linear(8, 12, bias=False)
    if name == "weight_norm":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # what DINO's own code uses
            return Head(weight_norm(layer))
    forms: dict[str, Callable[[], Any]] = {
        "tensor": lambda: random_weight(12, 8),
        "layer": lambda: layer,
        "module": lambda: Head(layer),
        "function": lambda: lambda: layer.weight,
        "parametrization": lambda: Head(parametrizations.weight_norm(layer)),
    }
    return forms[name]()


@pytest.mark.parametrize(
    "name", ["tensor", "layer", "module", "function", "parametrization", "weight_norm"]
)
def test_every_form_of_a_head_is_watched_as_it_changes(name: str) -> None:
    head = build(name)
    monitor = PrototypeMonitor(head, every=1, on_alarm=lambda _: None)
    seen = monitor.step()
    assert seen is not None
    assert (seen.k, seen.head.num_unique) == (12, 12)
    with torch.no_grad():
        weights = [head] if isinstance(head, Tensor) else []
        if isinstance(head, nn.Module):
            weights = [p for p in head.parameters() if p.shape == (12, 8)]
        elif not weights:
            weights = [head()]
        for weight in weights:
            weight[1:7] = weight[0]
    seen = monitor.step()
    assert seen is not None
    assert (seen.head.num_unique, seen.head.largest) == (6, 7)


def test_the_sign_of_a_weight_norm_scale_counts() -> None:
    head = Head(nn.utils.parametrizations.weight_norm(nn.Linear(8, 4, bias=False)))
    originals = head.last_layer.parametrizations.weight
    monitor = PrototypeMonitor(head, every=1, on_alarm=lambda _: None)
    monitor.step()
    with torch.no_grad():
        originals.original1[1] = -originals.original1[0]
        originals.original0[1] = -originals.original0[0]
    seen = monitor.step()
    assert seen is not None
    assert seen.head.num_unique == 3


def test_other_parametrizations_are_watched_by_their_result() -> None:
    layer = nn.utils.parametrizations.spectral_norm(nn.Linear(8, 4, bias=False))
    seen = PrototypeMonitor(layer, every=1).step()
    assert seen is not None
    assert seen.head.num_unique == 4


def test_a_module_without_a_layer_to_watch_is_refused() -> None:
    with pytest.raises(ParameterError, match=r"has none. Pass the layer itself, or its weight"):
        PrototypeMonitor(nn.Sequential(nn.Linear(4, 4)))
    two = nn.ModuleDict({"a": Head(nn.Linear(8, 4)), "b": Head(nn.Linear(8, 4))})
    with pytest.raises(ParameterError, match=r"has a.last_layer, b.last_layer"):
        PrototypeMonitor(two)
    with pytest.raises(ParameterError, match="every must be at least 1, got 0"):
        PrototypeMonitor(nn.Linear(4, 4), every=0)


# --- alarms and logs -----------------------------------------------------------------------------


def test_alarms_are_raised_at_the_onset_once_and_again_after_a_recovery() -> None:
    weight, raised = torch.eye(10), []
    monitor = PrototypeMonitor(weight, every=1, on_alarm=raised.append)
    for unique in (10, 9, 8, 8, 4, 4, 10, 8):
        weight[:] = torch.eye(10)
        weight[unique:] = weight[0]
        monitor.step()
    assert [(a.step, a.kind) for a in raised] == [(s, "unique_fraction") for s in (2, 4, 7)]
    assert raised[0].message == (
        "step 2: 8 of 10 prototypes are unique, fewer than 90 %: the head is collapsing."
    )


def test_an_alarm_is_a_warning_unless_somebody_listens() -> None:
    monitor = PrototypeMonitor(torch.eye(2).repeat(5, 1), every=1, alarms=(0.9,))
    with pytest.warns(CollapseAuditWarning, match="2 of 10 prototypes are unique"):
        monitor.step()


def test_a_loss_stuck_at_ln_k_or_zero_is_told_after_two_looks() -> None:
    raised: list[Alarm] = []
    weight = torch.eye(16)
    monitor = PrototypeMonitor(weight, every=1, on_alarm=raised.append)
    uniform = nn.functional.cross_entropy(torch.zeros(1, 16), torch.tensor([3]))
    for loss in (uniform, 2.0, uniform, uniform, uniform, 0.0, 1e-5):
        weight += 0.01 * random_weight(16, 16)  # it trains
        monitor.step(loss=loss)
    assert [(a.step, a.kind) for a in raised] == [(3, "loss_is_ln_k"), (6, "loss_is_zero")]
    assert "2.7726, which is ln K for K = 16" in raised[0].message


@pytest.mark.parametrize("value", [math.nan, 0.0])
def test_weights_that_cannot_be_audited_raise_an_alarm_and_end_nothing(value: float) -> None:
    weight, raised = torch.eye(8), []
    monitor = PrototypeMonitor(weight, every=1, on_alarm=raised.append)
    monitor.step()
    weight[3] = value
    assert monitor.step() is None
    assert [a.kind for a in raised] == ["not_auditable"]
    weight[:] = torch.eye(8)
    assert monitor.step() is not None


def test_a_file_and_a_function_get_every_look_and_nothing_else(tmp_path: Path) -> None:
    logged: list[tuple[int, dict[str, float]]] = []
    monitor = PrototypeMonitor(
        torch.eye(8),
        every=10,
        log_to=[
            tmp_path / "log.jsonl",
            lambda numbers, step: logged.append((step, dict(numbers))),
        ],
    )
    seen = [monitor.step(loss=1.5) for _ in range(25)]
    assert [s.step for s in seen if s is not None] == [0, 10, 20]
    lines = (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()
    expected = [{"run": 1, **s.to_dict()} for s in seen if s is not None]
    assert [json.loads(line) for line in lines] == expected
    assert [step for step, _ in logged] == [0, 10, 20]
    numbers = logged[1][1]
    assert numbers["prototypes/unique.greedy"] == 8
    assert numbers["prototypes/unique_fraction"] == 1
    assert numbers["prototypes/loss"] == 1.5
    assert all(isinstance(value, float) for value in numbers.values())


def test_runs_in_one_jsonl_file_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 0}\n{"step": 1, "uni', encoding="utf-8")  # of 0.1.0, and killed
    for _ in range(2):
        monitor = PrototypeMonitor(random_weight(20), every=2, log_to=path)
        for _ in range(4):
            monitor.step()
    first, unfinished, *lines = path.read_text(encoding="utf-8").splitlines()
    assert (first, unfinished) == ('{"step": 0}', '{"step": 1, "uni')
    found = [(entry["run"], entry["step"]) for entry in map(json.loads, lines)]
    assert found == [(2, 0), (2, 2), (3, 0), (3, 2)]


def test_the_student_is_counted_and_compared_with_the_teacher() -> None:
    teacher, student = torch.eye(8), torch.eye(8)
    student[4:] = student[0]
    monitor = PrototypeMonitor(teacher, student=student, every=1)
    seen = monitor.step()
    assert seen is not None
    assert seen.student is not None
    assert (seen.head.num_unique, seen.student.num_unique) == (8, 4)
    assert seen.student_cosine == pytest.approx(0.5)


def test_the_mlcd_of_a_shown_batch_is_measured_over_k_and_m() -> None:
    weight = torch.eye(4)[[0, 0, 1, 1]]
    monitor = PrototypeMonitor(weight, every=1, temperature=0.01, on_alarm=lambda _: None)
    features = torch.eye(4)[:2].repeat(5, 1)
    for batch in ({"features": features}, {"logits": features @ weight.T}):
        seen = monitor.step(**batch)
        assert seen is not None
        assert seen.mlcd is not None
        assert seen.mlcd["n"] == 10
        assert seen.mlcd["k.perplexity"] == pytest.approx(4)
        assert seen.mlcd["m.perplexity"] == pytest.approx(2)
        assert seen.mlcd["mutual_information"] == pytest.approx(math.log(2), abs=1e-6)


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "no temperature": ({"temperature": None}, "needs the temperature of the head. Pass `temp"),
    "logits of NaN": ({"logits": torch.full((2, 4), math.nan)}, "NaN"),
    "logits of another K": ({"logits": torch.zeros(2, 7)}, "must be n x 4"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_batch_that_cannot_be_measured_costs_the_mlcd_and_not_the_look(fault: str) -> None:
    changes, message = FAULTS[fault]
    values = {"temperature": 0.1, "logits": torch.zeros(2, 4)} | changes
    raised: list[Alarm] = []
    temperature, logits = values["temperature"], values["logits"]
    monitor = PrototypeMonitor(
        torch.eye(4), every=1, temperature=temperature, on_alarm=raised.append
    )
    for _ in range(2):
        seen = monitor.step(logits=logits)
        assert seen is not None
        assert (seen.head.num_unique, seen.mlcd) == (4, None)
    assert [(alarm.step, alarm.kind) for alarm in raised] == [(0, "no_mlcd")]
    assert message in raised[0].message


def test_a_head_of_another_k_is_counted_anew() -> None:
    weights = [torch.eye(8), torch.eye(5), torch.eye(5, 9)]
    head = iter(weights)
    monitor = PrototypeMonitor(lambda: next(head), student=torch.eye(8), every=1)
    seen = [monitor.step() for _ in weights]
    assert [(s.k, s.head.num_unique, s.student_cosine) for s in seen if s is not None] == [
        (8, 8, 1.0),
        (5, 5, None),
        (5, 5, None),
    ]


@pytest.mark.parametrize("loss", [math.nan, math.inf, torch.tensor(math.nan)])
def test_a_loss_that_is_not_finite_is_an_alarm_and_leaves_the_log_valid(
    tmp_path: Path, loss: Any
) -> None:
    raised: list[Alarm] = []
    path = tmp_path / "log.jsonl"
    monitor = PrototypeMonitor(torch.eye(8), every=1, log_to=path, on_alarm=raised.append)
    monitor.step(loss=loss)
    monitor.step(loss=loss)
    assert [(alarm.step, alarm.kind) for alarm in raised] == [(0, "loss_not_finite")]
    for line in path.read_text(encoding="utf-8").splitlines():
        assert json.loads(line, parse_constant=pytest.fail)["loss"] is None


def test_a_log_or_a_tracker_that_fails_does_not_end_the_training(tmp_path: Path) -> None:
    def unreachable(_numbers: object, step: int) -> None:
        if step != 2:
            raise ConnectionError("no route to host")

    raised: list[Alarm] = []
    full, folder = tmp_path / "full.jsonl", tmp_path / "folder.jsonl"
    full.symlink_to("/dev/full")
    folder.mkdir()
    for target in (full, folder, tmp_path / "no" / "folder.jsonl"):
        monitor = PrototypeMonitor(torch.eye(8), every=1, log_to=target, on_alarm=raised.append)
        assert [monitor.step() is not None for _ in range(3)] == [True] * 3
    assert [alarm.kind for alarm in raised] == ["not_written"] * 3
    assert "No space left on device" in raised[0].message
    raised.clear()
    monitor = PrototypeMonitor(torch.eye(8), every=1, log_to=unreachable, on_alarm=raised.append)
    assert [monitor.step() is not None for _ in range(4)] == [True] * 4
    assert [alarm.message for alarm in raised] == [
        f"step {step}: no route to host"
        for step in (0, 3)  # again after it worked
    ]


def test_a_disk_that_becomes_full_leaves_whole_lines(tmp_path: Path) -> None:
    code = (
        "import resource, torch; from collapse_audit.monitor import PrototypeMonitor\n"
        "monitor = PrototypeMonitor(torch.eye(8), every=1, log_to='log.jsonl', on_alarm=print)\n"
        "hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))\n"
        "for _ in range(20): monitor.step()\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))\n"
        "monitor.step()"
    )
    command = [sys.executable, "-B", "-c", code]  # the limit would cut compiled modules too
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    assert done.stdout.count("not_written") == 1
    lines = (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == [*range(len(lines) - 1), 20]
    assert 1 < len(lines) < 20


def test_only_rank_0_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    for rank, looks in ((0, True), (1, False)):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        assert (PrototypeMonitor(torch.eye(4)).step() is not None) is looks


# --- adapters (where a framework is not installed, its base classes are stood in for) ------------


class Logger:
    """The method of Lightning's loggers that the callback calls."""

    def __init__(self) -> None:
        self.logged: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        assert step is not None
        self.logged.append((step, metrics))


@pytest.mark.parametrize("package", ["lightning.pytorch.callbacks", "pytorch_lightning.callbacks"])
def test_the_lightning_callback_logs_at_every_look(
    monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    class Callback:
        pass

    class Module:
        def log_dict(
            self, numbers: dict[str, float], *, rank_zero_only: bool, logger: bool
        ) -> None:
            assert (rank_zero_only, logger) == (True, False)
            metrics.append(numbers)

    for name in ("lightning", "lightning.pytorch.callbacks", "pytorch_lightning.callbacks"):
        monkeypatch.setitem(sys.modules, name, None)  # not installed, whatever this machine has
    stand_in(monkeypatch, package, Callback=Callback)
    callback = lightning_callback(PrototypeMonitor(torch.eye(8), every=2))
    assert isinstance(callback, Callback)
    metrics: list[dict[str, float]] = []
    loggers = [Logger(), Logger()]
    for step in (2, 2, 3, 4):
        trainer = types.SimpleNamespace(global_step=step, loggers=loggers)
        callback.on_train_batch_end(trainer, Module(), {"loss": torch.tensor(1.0)}, None, 0)
    assert len(metrics) == 2, "accumulated batches share a step and are one look"
    assert metrics[0]["prototypes/loss"] == 1.0
    for logger in loggers:
        assert logger.logged == list(zip((2, 4), metrics, strict=True))


@pytest.mark.filterwarnings("ignore")  # those of Lightning itself
def test_a_lightning_trainer_runs_the_callback(tmp_path: Path) -> None:
    lightning = pytest.importorskip("pytorch_lightning")

    class Head(lightning.LightningModule):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.prototypes = torch.nn.Linear(8, 16, bias=False)

        def training_step(self, batch: torch.Tensor, _index: int) -> torch.Tensor:
            return self.prototypes(batch).square().mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    head = Head()
    history = tmp_path / "history.jsonl"
    monitor = PrototypeMonitor(head.prototypes, every=3, log_to=history)
    logger = lightning.loggers.CSVLogger(tmp_path, flush_logs_every_n_steps=1)
    trainer = lightning.Trainer(
        max_steps=9, accelerator="cpu", callbacks=[lightning_callback(monitor)], logger=logger,
        log_every_n_steps=7, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(head, torch.utils.data.DataLoader(torch.randn(36, 8), batch_size=4))
    seen = [json.loads(line) for line in history.read_text().splitlines()]
    assert [entry["step"] for entry in seen] == [3, 6, 9]
    with Path(logger.log_dir, "metrics.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["prototypes/unique_fraction"]]
    assert [int(row["step"]) for row in rows] == [3, 6, 9], "whatever log_every_n_steps"
    logged = {name: value.item() for name, value in trainer.callback_metrics.items()}
    assert logged["prototypes/unique.greedy"] == seen[-1]["unique"]["greedy"] == 16
    assert logged["prototypes/loss"] == pytest.approx(seen[-1]["loss"])


class Trainer:
    """As much of transformers' Trainer as its callbacks meet, in the order of its own loop."""

    def __init__(self, logging_steps: int, losses: list[float]) -> None:
        self.state = types.SimpleNamespace(global_step=0, log_history=[])
        self.control = types.SimpleNamespace(should_log=False)
        self.callbacks: list[Any] = []
        self._logging_steps, self._losses = logging_steps, losses

    def add_callback(self, callback: Any) -> None:
        self.callbacks.append(callback)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        assert start_time is None
        self.state.log_history.append({**logs, "step": self.state.global_step})
        for callback in self.callbacks:
            callback.on_log(None, self.state, self.control, logs=logs, model=None)

    def train(self) -> None:
        for loss in self._losses:
            self.state.global_step += 1
            self.control.should_log = self.state.global_step % self._logging_steps == 0
            for callback in self.callbacks:
                callback.on_step_end(None, self.state, self.control, model=None)
            if self.control.should_log:
                self.log({"loss": loss, "learning_rate": 0.1})
        self.log({"train_runtime": 1.0, "train_loss": 2.0})


def test_the_transformers_callback_logs_into_the_trainer_with_its_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stand_in(monkeypatch, "transformers", TrainerCallback=type("TrainerCallback", (), {}))
    trainer = Trainer(logging_steps=4, losses=[float(step) for step in range(1, 12)])
    trainer.add_callback(trainer_callback(PrototypeMonitor(torch.eye(8), every=5), trainer))
    trainer.train()
    history = trainer.state.log_history
    assert [entry["step"] for entry in history if "loss" in entry] == [4, 5, 8, 10]
    seen = [
        (entry["step"], entry["prototypes/loss"], entry["prototypes/unique.greedy"])
        for entry in history
        if "prototypes/loss" in entry
    ]
    assert seen == [(5, 5.0, 8.0), (10, 10.0, 8.0)]


@pytest.mark.filterwarnings("ignore")  # those of transformers itself
def test_a_trainer_of_transformers_runs_the_callback(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.prototypes = nn.Linear(8, 16, bias=False)

        def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
            return {"loss": (self.prototypes(x).sum(1) - labels).square().mean()}

    head = Head()
    arguments = transformers.TrainingArguments(
        str(tmp_path), max_steps=9, per_device_train_batch_size=4, logging_steps=4,
        report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    data = [{"x": torch.randn(8), "labels": torch.tensor(1.0)} for _ in range(36)]
    trainer = transformers.Trainer(head, arguments, train_dataset=data)
    monitor = PrototypeMonitor(head.prototypes, every=3)
    trainer.add_callback(trainer_callback(monitor, trainer))
    trainer.train()
    history = trainer.state.log_history
    assert [entry["step"] for entry in history if "loss" in entry] == [3, 4, 6, 8, 9]
    losses = {entry["step"]: entry["loss"] for entry in history if "loss" in entry}
    seen = {e["step"]: e["prototypes/loss"] for e in history if "prototypes/loss" in e}
    assert seen == {step: pytest.approx(float(losses[step])) for step in (3, 6, 9)}


def test_a_framework_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(CollapseAuditError, match=r"transformers is not installed. pip install"):
        trainer_callback(PrototypeMonitor(torch.eye(4)), None)


# --- a real training -----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_onset_of_collapse_in_a_training_is_where_saved_heads_confirm_it() -> None:
    """Digits are classified while every prototype is drawn to the mean feature."""
    from sklearn.datasets import load_digits

    torch.manual_seed(0)
    digits = load_digits()
    images, labels = torch.from_numpy(digits.data).float() / 16, torch.from_numpy(digits.target)
    backbone = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 16))
    probe, layer = nn.Linear(16, 10), nn.Linear(16, 256, bias=False)
    weights = [*backbone.parameters(), *probe.parameters(), *layer.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=3e-3)
    raised: list[Alarm] = []
    monitor = PrototypeMonitor(layer, every=5, on_alarm=raised.append)
    saved: dict[int, np.ndarray] = {}
    for step in range(200):
        batch = torch.randint(len(images), (64,))
        features = nn.functional.normalize(backbone(images[batch]), dim=1)
        prototypes = nn.functional.normalize(layer.weight, dim=1)
        loss = nn.functional.cross_entropy(probe(features), labels[batch])
        loss = loss + (prototypes - features.mean(0)).square().sum(1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        saved[step] = layer.weight.detach().numpy().copy()
        monitor.step(loss=loss)
    fraction = {
        step: audit_prototypes(
            Prototypes.from_weight(saved[step]), sweep=False, nearest=False
        ).unique_fraction
        for step in range(0, 200, 5)
    }
    assert [a.kind for a in raised] == ["unique_fraction", "unique_fraction", "all_equal"]
    for limit, alarm in zip((0.9, 0.5), raised, strict=False):
        onset = next(step for step, value in fraction.items() if value < limit)
        assert alarm.step == onset
        assert onset > 0
