"""Where the numbers of a look go: files always, and each tracker for real where it is installed."""

from __future__ import annotations

import csv
import re
import sqlite3
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from collapse_audit.errors import CollapseAuditError, ParameterError
from collapse_audit.monitor import Alarm, PrototypeMonitor

pytestmark = pytest.mark.filterwarnings("ignore")  # those of the packages

ALARM = "step 200: 4 of 8 prototypes are unique, fewer than 90 %: the head is collapsing."


def watch(log_to: Any, on_alarm: Any = lambda _: None) -> None:
    """Three looks; the last of them finds a head that has begun to collapse."""
    weight = torch.eye(8)
    monitor = PrototypeMonitor(weight, every=100, log_to=log_to, on_alarm=on_alarm)
    for step in range(250):
        if step == 200:
            weight[4:] = weight[0]
        monitor.step(step=step, loss=1.5)


UNIQUE = [(0, 8.0), (100, 8.0), (200, 4.0)]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_csv_has_a_row_for_each_look_and_a_column_for_all_that_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "watch.csv"
    watch(path)
    rows = rows_of(path)
    assert [(int(row["step"]), float(row["unique.greedy"])) for row in rows] == UNIQUE
    assert [row["nearest_cosine.median"] != "" for row in rows] == [True, False, True]
    assert [row["turned_degrees.max"] == "" for row in rows] == [True, False, False]
    assert list(rows[0])[:3] == ["step", "k", "unique.greedy"]


def test_a_resumed_run_goes_on_in_the_csv_it_has(tmp_path: Path) -> None:
    path = tmp_path / "watch.csv"
    path.write_text("step,mine\n-1,7\n")
    watch(str(path))
    assert [(row["step"], row["mine"]) for row in rows_of(path)] == [
        ("-1", "7"), ("0", ""), ("100", ""), ("200", "")
    ]  # fmt: skip


def test_several_get_the_same(tmp_path: Path) -> None:
    logged: list[tuple[int, float]] = []

    def function(numbers: Any, step: int) -> None:
        logged.append((step, numbers["prototypes/unique.greedy"]))

    watch([tmp_path / "watch.csv", str(tmp_path / "watch.jsonl"), function])
    assert logged == UNIQUE
    assert len(rows_of(tmp_path / "watch.csv")) == 3
    assert len((tmp_path / "watch.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize("log_to", ["tensorbord:runs", "watch.txt", "csv", "", 7, Path("wandb")])
def test_a_name_that_is_no_tracker_is_refused(log_to: Any) -> None:
    with pytest.raises(ParameterError, match=r"is no tracker. Take a file \(.csv, .jsonl\), tens"):
        watch(log_to)


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow", "trackio"])
def test_a_tracker_that_is_not_installed_is_told_at_once(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (name, f"torch.utils.{name}"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(CollapseAuditError, match=rf"{name} is not installed. pip install {name}"):
        PrototypeMonitor(torch.eye(4), log_to=name)


# --- stand-ins, which take what the packages document and refuse what they refuse ----------------


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Any:
    def put(name: str, **attributes: Any) -> types.ModuleType:
        module = types.ModuleType(name)
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return put


def test_a_summary_writer_gets_every_number_and_is_flushed(stand_in: Any) -> None:
    written: list[tuple[str, float, int]] = []
    flushed: list[int] = []

    class SummaryWriter:
        def __init__(self, log_dir: str | None = None) -> None:
            assert (log_dir, written) == ("runs/head", [])

        def add_scalar(self, tag: str, scalar_value: float, global_step: int | None = None) -> None:
            assert global_step is not None
            written.append((tag, scalar_value, global_step))

        def flush(self) -> None:
            flushed.append(len(written))

    stand_in("torch.utils.tensorboard", SummaryWriter=SummaryWriter)
    watch("tensorboard:runs/head")
    assert [(s, v) for t, v, s in written if t == "prototypes/unique.greedy"] == UNIQUE
    assert flushed[-1] == len(written)


@pytest.mark.parametrize("active", [False, True])
def test_mlflow_gets_names_it_accepts_in_the_run_that_is_active(
    stand_in: Any, active: bool
) -> None:
    logged: list[tuple[int, float]] = []
    experiments: list[str] = []

    def log_metrics(metrics: dict[str, float], step: int | None = None) -> None:
        assert step is not None
        for name in metrics:
            assert re.fullmatch(r"[/\w.\- :]*", name), "what MLflow accepts as the name of a metric"
        logged.append((step, metrics["prototypes/unique.greedy"]))

    stand_in(
        "mlflow", log_metrics=log_metrics, set_experiment=experiments.append,
        active_run=lambda: "run" if active or logged else None,
    )  # fmt: skip
    watch("mlflow:heads")
    assert (logged, experiments) == (UNIQUE, [] if active else ["heads"])


class Run:
    """A run of W&B that counts its own steps."""

    def __init__(self) -> None:
        self.logged: list[tuple[float, float]] = []

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        assert (name, step_metric, self.logged) == ("prototypes/*", "prototypes/step", [])

    def log(self, data: dict[str, float], step: int | None = None) -> None:
        assert step is None
        self.logged.append((data["prototypes/step"], data["prototypes/unique.greedy"]))


@pytest.mark.parametrize("active", [None, Run()])
def test_wandb_gets_every_number_on_an_axis_of_its_own(stand_in: Any, active: Run | None) -> None:
    begun: list[Run] = []

    def init(project: str | None) -> Run:
        assert project == "heads"
        begun.append(Run())
        return begun[0]

    stand_in("wandb", run=active, init=init)
    watch("wandb:heads")
    assert (active or begun[0]).logged == UNIQUE
    assert len(begun) == (active is None)


def test_trackio_gets_alarms_as_alerts_also_of_a_look_that_failed(stand_in: Any) -> None:
    calls: list[Any] = []
    stand_in(
        "trackio", init=lambda **given: calls.append(given["project"]),
        log=lambda metrics, step: calls.append((step, metrics["prototypes/k"])),
        alert=lambda **told: calls.append(told["title"]),
    )  # fmt: skip
    weight = torch.eye(8)
    monitor = PrototypeMonitor(weight, every=1, log_to="trackio:heads", on_alarm=lambda _: None)
    monitor.step()
    weight[:] = torch.nan
    monitor.step()
    assert calls == ["heads", (0, 8.0), "not_auditable"]


# --- for real ------------------------------------------------------------------------------------


def test_tensorboard(tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    watch(f"tensorboard:{tmp_path}")
    events = accumulators.EventAccumulator(str(tmp_path))
    events.Reload()
    scalars = events.Scalars("prototypes/unique.greedy")
    assert [(scalar.step, scalar.value) for scalar in scalars] == UNIQUE


@pytest.fixture
def mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    package = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    package.set_tracking_uri((tmp_path / "store").as_uri())
    yield package
    package.end_run()


def test_mlflow_in_a_run_of_its_own_and_in_one_that_is_active(mlflow: Any) -> None:
    watch("mlflow:heads")
    own = mlflow.active_run().info
    assert mlflow.get_experiment(own.experiment_id).name == "heads"
    mlflow.end_run()
    active = mlflow.start_run().info
    watch("mlflow")
    for run in (own, active):
        history = mlflow.MlflowClient().get_metric_history(run.run_id, "prototypes/unique.greedy")
        assert [(point.step, point.value) for point in history] == UNIQUE
    assert own.run_id != active.run_id


def test_wandb_on_an_axis_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = wandb.init(project="heads")
    for step in range(500):  # a count of its own, ahead of ours
        run.log({"mine": step})
    watch("wandb")
    summary = dict(run.summary)
    run.finish()
    assert (summary["prototypes/step"], summary["prototypes/unique.greedy"]) == (200, 4.0)
    assert summary["mine"] == 499
    watch("wandb:others")
    assert wandb.run.project == "others"
    wandb.finish()


def test_trackio_and_its_alert_on_an_alarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    trackio = pytest.importorskip("trackio")
    raised: list[Alarm] = []
    watch("trackio:heads", raised.append)
    trackio.finish()
    (file,) = tmp_path.rglob("heads*.db")
    with sqlite3.connect(file) as store:
        metrics = [text for (text,) in store.execute("select metrics from metrics")]
        alerts = list(store.execute("select title, text from alerts"))
    assert len(metrics) >= 3
    assert alerts == [("unique_fraction", ALARM)]
    assert [alarm.message for alarm in raised] == [ALARM]
