"""Progress bars: on terminals, for long work, where they are wanted."""

from __future__ import annotations

import io
import sys

import pytest

from collapse_audit.cli import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_long_work_shows_a_bar_on_a_terminal_and_clears_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "DELAY_SECONDS", 0)
    with progress.progress_bars(wanted=True) as report:
        report("cover", 50, 100)
        report("sweep", 1, 7)
    shown = terminal.getvalue()
    assert "cover:" in shown
    assert "/100 " in shown
    assert "sweep:" in shown
    assert shown.endswith("\r")


def test_short_work_shows_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress.progress_bars(wanted=True) as report:
        report("cover", 100, 100)
    assert terminal.getvalue().strip() == ""


@pytest.mark.parametrize(("wanted", "stream"), [(False, Terminal()), (True, io.StringIO())])
def test_no_bar_in_pipes_or_if_not_wanted(
    monkeypatch: pytest.MonkeyPatch, wanted: bool, stream: io.StringIO
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "DELAY_SECONDS", 0)
    with progress.progress_bars(wanted=wanted) as report:
        report("cover", 50, 100)
    assert stream.getvalue() == ""
