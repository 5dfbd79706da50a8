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
