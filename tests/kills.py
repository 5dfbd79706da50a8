"""Kills at a counted point of the work: no clock decides, so a busy machine changes nothing."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

_OPERATIONS = {"open", "os.mkdir", "os.remove", "os.rename"}


def kill_now() -> None:
    """End this process as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)


class Operations:
    """Counts what this process does with the files of a folder, and kills it before one of them.

    Of a process that was forked for it: an audit hook stays.
    """

    def __init__(self, folder: Path, kill_at: int | None = None) -> None:
        self.count = 0
        self._folder, self._kill_at = str(folder), kill_at
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _OPERATIONS and any(map(self._is_inside, arguments[:2])):
            if self.count == self._kill_at:
                kill_now()
            self.count += 1

    def _is_inside(self, path: object) -> bool:
        return isinstance(path, str | os.PathLike) and os.fspath(path).startswith(self._folder)
