"""The JSON lines of a run: losses, M and perplexities as training goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from collapse_audit.errors import SourceError
from collapse_audit.training.checkpointing import write_text
from collapse_audit.training.data import Data
from collapse_audit.training.evaluate import audit_rows, class_distribution
from collapse_audit.training.loop import TrainingState


class RunLog:
    """The JSON lines of a run; those of steps after ``keep_to``, which follow again, go."""

    def __init__(self, path: Path, *, keep_to: int) -> None:
        self.path = path
        try:
            text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        except OSError as error:
            raise SourceError(f"{path}: cannot be read ({error.strerror}).") from error
        kept = [f"{line}\n" for line in text.splitlines() if _iteration_of(line) <= keep_to]
        write_text(path, "".join(kept))

    def audit(self, state: TrainingState, data: Data, losses: dict[str, float]) -> dict[str, float]:
        """Log losses, M and perplexities of the teacher; the three numbers for the progress bar."""
        audit = audit_rows(state.teacher.prototypes, full=False)
        classes = class_distribution(state.teacher, data, state.objective, audit["groups"])
        unique = audit["unique"]["greedy"]
        self.write(
            {
                "iteration": state.iteration,
                **losses,
                "unique": unique,
                **classes,
                "lr": state.optimiser.param_groups[1]["lr"],
            }
        )
        return {"loss": losses["loss"], "M": unique, "perplexity": classes["perplexity"]}

    def write(self, record: dict[str, Any]) -> None:
        """Append one record of plain values."""
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(record) + "\n")
        except OSError as error:
            raise SourceError(f"{self.path}: cannot be written ({error.strerror}).") from error


def _iteration_of(line: str) -> float:
    """Step of a log line; a line cut off by a kill, or damaged, is of no step and is dropped."""
    try:
        return float(json.loads(line)["iteration"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return float("inf")
