"""Progress bars on stderr, for work that takes more than two seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tqdm import tqdm

    from collapse_audit.similarity import Progress

#: Shorter work gets no bar: it would only flicker.
DELAY_SECONDS: Final = 2.0


@contextmanager
def progress_bars(*, wanted: bool) -> Iterator[Progress]:
    """One bar per stage, cleared when the work is over; none if unwanted, or without a terminal."""
    if not wanted or not sys.stderr.isatty():
        from collapse_audit.similarity import silent

        yield silent
        return
    from tqdm import tqdm

    bars: dict[str, tqdm[Any]] = {}

    def report(stage: str, done: int, total: int) -> None:
        if stage not in bars:
            _close(bars)  # the stage before is over, whatever its last call said
            bars[stage] = tqdm(
                total=total, desc=stage, delay=DELAY_SECONDS, leave=False, file=sys.stderr
            )
        bars[stage].update(done - bars[stage].n)

    try:
        yield report
    finally:
        _close(bars)


def _close(bars: dict[str, tqdm[Any]]) -> None:
    while bars:
        bars.popitem()[1].close()
