"""What fetching tells the user, on stderr: notes, and a bar with the rate."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Timer

from collapse_audit.words import printable

Update = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Reporter:
    """Tells what is being fetched."""

    notes: bool = True  # such as a fallback to a full download
    bars: bool = True  # never drawn where stderr is no terminal

    def note(self, text: str) -> None:
        """Print one line."""
        if self.notes:
            sys.stderr.write(f"{printable(text, 1000)}\n")

    @contextmanager
    def waiting(self, text: str, seconds: float = 2.0) -> Iterator[None]:
        """Print one line as soon as something takes longer than that."""
        timer = Timer(seconds, self.note, [text])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    @contextmanager
    def bar(self, title: str, total: int | None, done: int = 0) -> Iterator[Update]:
        """Show how far a transfer of bytes is; what it yields takes the number that came in."""
        if not (self.bars and sys.stderr.isatty()):
            yield lambda _count: None
            return
        from tqdm import tqdm

        bar = tqdm(
            desc=title, total=total, initial=done, unit="B", unit_scale=True, file=sys.stderr
        )
        with bar:
            yield bar.update


SILENT = Reporter(notes=False, bars=False)
