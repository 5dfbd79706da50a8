"""The recipes of docs/monitor.md, run: against stand-ins, and against the packages if installed.

The stand-ins take what the packages document and refuse what they refuse.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from collapse_audit import PrototypeMonitor
from tests.stand_ins import stand_in

pytestmark = pytest.mark.filterwarnings("ignore")  # those of the packages


@pytest.fixture
def run(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the recipe of a section, and three looks; what it defined."""
    monkeypatch.chdir(tmp_path)
    page = (repository / "docs" / "monitor.md").read_text(encoding="utf-8")

    def recipe(section: str, **given: Any) -> dict[str, Any]:
        (code,) = re.findall(rf"\n### {section}\n.*?```python\n(.*?)```", page, flags=re.DOTALL)[:1]
        defined: dict[str, Any] = {"head": torch.eye(8), **given}
        exec(code, defined)  # noqa: S102 - our own page
        assert isinstance(defined["monitor"], PrototypeMonitor)
        return defined

    return recipe


def look(defined: dict[str, Any]) -> None:
    for step in range(250):
        defined["monitor"].step(step=step, loss=1.5)


# --- TensorBoard: add_scalar(tag, scalar_value, global_step=None) --------------------------------


def test_tensorboard_gets_every_number(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, float, int]] = []

    class SummaryWriter:
        def __init__(self, log_dir: str | None = None) -> None:
            assert log_dir == "runs/head"

        def add_scalar(self, tag: str, scalar_value: float, global_step: int | None = None) -> None:
            assert global_step is not None
            written.append((tag, scalar_value, global_step))

    stand_in(monkeypatch, "torch.utils.tensorboard", SummaryWriter=SummaryWriter)
    look(run("TensorBoard"))
    assert [(v, s) for t, v, s in written if t == "prototypes/unique.greedy"] == [
        (8.0, 0),
        (8.0, 100),
        (8.0, 200),
    ]


def test_tensorboard_itself(run: Any, tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    defined = run("TensorBoard")
    look(defined)
    defined["writer"].close()
    events = accumulators.EventAccumulator(str(tmp_path / "runs" / "head"))
    events.Reload()
    scalars = events.Scalars("prototypes/loss")
    assert [(scalar.step, scalar.value) for scalar in scalars] == [(0, 1.5), (100, 1.5), (200, 1.5)]


# --- MLflow: log_metrics(metrics, step=None) -----------------------------------------------------


def test_mlflow_gets_every_number(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[tuple[int, float]] = []

    def log_metrics(metrics: dict[str, float], step: int | None = None) -> None:
        assert step is not None
        for name in metrics:
            assert re.fullmatch(r"[/\w.\- :]*", name), "what MLflow accepts as the name of a metric"
        logged.append((step, metrics["prototypes/unique_fraction"]))

    stand_in(monkeypatch, "mlflow", start_run=lambda: None, log_metrics=log_metrics)
    look(run("MLflow"))
    assert logged == [(0, 1.0), (100, 1.0), (200, 1.0)]


def test_mlflow_itself(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    import mlflow  # type: ignore[import-not-found, unused-ignore]

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "store").as_uri())
    try:
        look(run("MLflow"))
        active = mlflow.active_run().info.run_id
        history = mlflow.MlflowClient().get_metric_history(active, "prototypes/unique.greedy")
    finally:
        mlflow.end_run()
    assert [(point.step, point.value) for point in history] == [(0, 8.0), (100, 8.0), (200, 8.0)]


# --- Weights & Biases: log(data, step=None), define_metric(name, step_metric=None) ----------------


def test_wandb_gets_every_number_on_an_axis_of_its_own(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[dict[str, float]] = []

    class Run:
        def define_metric(self, name: str, step_metric: str | None = None) -> None:
            assert (name, step_metric) == ("prototypes/*", "prototypes/step")

        def log(self, data: dict[str, float], step: int | None = None) -> None:
            assert step is None
            logged.append(data)

    def init(project: str) -> Run:
        assert project == "heads"
        return Run()

    stand_in(monkeypatch, "wandb", init=init)
    look(run("Weights & Biases"))
    assert [data["prototypes/step"] for data in logged] == [0, 100, 200]
    assert {data["prototypes/loss"] for data in logged} == {1.5}


def test_wandb_itself(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    defined = run("Weights & Biases")
    for step in range(250):
        defined["run"].log({"mine": step})  # a count of its own, ahead of ours
        defined["run"].log({"mine": step})
        defined["monitor"].step(step=step, loss=float(step))
    summary = dict(defined["run"].summary)
    defined["run"].finish()
    assert (summary["prototypes/step"], summary["prototypes/loss"]) == (200, 200.0)


# --- frameworks: their callbacks are run in test_monitor.py ---------------------------------------


def test_the_lightning_recipe_gives_the_trainer_a_callback(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Callback:
        pass

    class Trainer:
        def __init__(self, *, callbacks: list[Callback]) -> None:
            self.callbacks = callbacks

    stand_in(monkeypatch, "lightning.pytorch.callbacks", Callback=Callback)
    monkeypatch.setattr(sys.modules["lightning.pytorch"], "Trainer", Trainer, raising=False)
    (callback,) = run("PyTorch Lightning")["trainer"].callbacks
    assert isinstance(callback, Callback)


def test_the_transformers_recipe_gives_the_trainer_a_callback(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Callback:
        pass

    class Trainer:
        def __init__(self, model: object, args: object, *, train_dataset: object) -> None:
            assert (model, args, train_dataset) == (None, None, [])
            self.callbacks: list[Callback] = []

        def add_callback(self, callback: Callback) -> None:
            self.callbacks.append(callback)

    stand_in(monkeypatch, "transformers", TrainerCallback=Callback, Trainer=Trainer)
    defined = run("Hugging Face transformers", model=None, arguments=None, data=[])
    assert isinstance(defined["trainer"].callbacks[0], Callback)
