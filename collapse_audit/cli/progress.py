"""Progress bars on stderr, for work that takes more than two seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from tqdm import tqdm

#: Called with the stage, what is done of it, and the total.
Progress: TypeAlias = Callable[[str, int, int], None]

#: Shorter work gets no bar: it would only flicker.
DELAY_SECONDS: Final = 2.0


@contextmanager
def progress_bars(*, wanted: bool) -> Iterator[Progress | None]:
    """One bar per stage, cleared when the work is over.

    Args:
        wanted: ``False`` if the user wants none; there is none either where stderr is no terminal.

    Yields:
        The callback to pass on, or ``None``.
    """
    if not wanted or not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    bars: dict[str, tqdm[None]] = {}

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


def _close(bars: dict[str, tqdm[None]]) -> None:
    while bars:
        bars.popitem()[1].close()
