"""How long computations tell what they are doing, without knowing who listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called now and then with a stage and how much of it is done."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Report that ``done`` of ``total`` units of ``stage`` are done."""


def silent(stage: str, done: int, total: int) -> None:
    """Tell nobody."""
