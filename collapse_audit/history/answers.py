"""Answers that are kept, so that nothing is measured twice and a killed call loses nothing.

::

    history/files/KEY.json      of one path: its state, and the answer to each of its heads
    history/answers/KEY.json    of one head, by the SHA-256 of its tensors: report and groups

A path whose size, inode and times are unchanged is not opened again. Else its heads are read, and
the checksum of their tensors decides whether they were measured before, wherever they lay.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from collapse_audit.errors import SourceError
from collapse_audit.files import read_json, write_atomically
from collapse_audit.history.changes import Groups
from collapse_audit.prototypes import Prototypes
from collapse_audit.report.documents import HeadDocument
from collapse_audit.version import __version__
from collapse_audit.words import printable

#: Name, device, inode, size and times in nanoseconds of each file of a checkpoint.
State: TypeAlias = list[list[str | int]]


@dataclass(frozen=True, slots=True, eq=False)
class HeadState:
    """One head at one checkpoint.

    Attributes:
        report: Its entry in a report.
        groups: Group of each prototype (k, int64), numbered by falling size.
    """

    report: HeadDocument
    groups: Groups


def state_of(path: Path) -> State:
    """What tells whether a checkpoint has changed, without opening it."""
    # the pieces of one that is given by its index lie beside it
    whole = path.parent if path.name.endswith((".index.json", ".metadata")) else path
    try:
        files = sorted(whole.iterdir()) if whole.is_dir() else [whole]
        found = [(file.name, file.stat()) for file in files]
    except OSError as error:
        raise SourceError(f"{printable(path)}: cannot be opened ({error.strerror}).") from error
    return [
        [name, s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns] for name, s in found
    ]


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers of a folder to one question."""

    folder: Path | None  # ``None`` keeps nothing
    question: Sequence[object]  # what is measured, and of which heads

    def of_file(self, path: Path, state: State) -> tuple[HeadState, ...] | None:
        """What was answered for a path in this state, if all of it is there."""
        kept = self._read("files", str(path)) or {}
        if kept.get("state") != state:
            return None
        found = tuple(self._answer(key) for key in kept["heads"])
        return found if found and all(found) else None  # type: ignore[return-value]

    def of_heads(
        self,
        path: Path,
        state: State,
        heads: Sequence[Prototypes],
        measure: Callable[[Prototypes], HeadState],
    ) -> tuple[HeadState, ...]:
        """Answer for the heads of a path, each measured if its tensors were not met before."""
        keys, answers = [], []
        for head in heads:
            keys.append([head.name, head.branch, head.k, head.d, head.dtype,
                         head.notes, head.tensor_keys, head.tensor_sha256])  # fmt: skip
            answer = self._answer(keys[-1]) if head.tensor_sha256 else None
            if answer is None:
                answer = measure(head)
                packed = zlib.compress(answer.groups.astype("<i4").tobytes())
                text = base64.b64encode(packed).decode()
                self._write("answers", keys[-1], {"head": answer.report, "groups": text})
            answers.append(answer)
        if state == state_of(path):
            self._write("files", str(path), {"state": state, "heads": keys})
        return tuple(answers)

    def _answer(self, key: object) -> HeadState | None:
        kept = self._read("answers", key) or {}
        try:
            head, packed = kept["head"], base64.b64decode(kept["groups"])
            groups = np.frombuffer(zlib.decompress(packed), "<i4").astype(np.int64)
            sound = len(groups) == head["k"] and groups.max() + 1 == head["unique"]["greedy"]
        except (KeyError, TypeError, ValueError, zlib.error):
            return None
        return HeadState(head, groups) if sound else None

    def _path(self, folder: Path, kind: str, key: object) -> Path:
        text = json.dumps([__version__, *self.question, key])
        return folder / kind / f"{hashlib.sha256(text.encode()).hexdigest()}.json"

    def _read(self, kind: str, key: object) -> dict[str, Any] | None:
        return None if self.folder is None else read_json(self._path(self.folder, kind, key))

    def _write(self, kind: str, key: object, value: dict[str, Any]) -> None:
        if self.folder is not None:
            with suppress(SourceError):  # a full disk: another call measures it again
                path = self._path(self.folder, kind, key)
                write_atomically(path, json.dumps(value).encode(), follow=False)
