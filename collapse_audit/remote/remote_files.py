"""What every kind of remote file can do, and the rules they share."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import Protocol

from collapse_audit.errors import SourceError
from collapse_audit.remote.settings import RemoteSettings

#: Bytes of the first request, which also tells size and version.
HEAD_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class FileVersion:
    """What tells one state of a remote file from another, as far as the server says it."""

    size: int | None  # in bytes
    etag: str | None = None
    modified: str | None = None  # time of the last change

    @property
    def is_checkable(self) -> bool:
        """Whether a change could be noticed; only then is a download resumed."""
        return self.size is not None and bool(self.etag or self.modified)

    def differs_from(self, other: FileVersion) -> bool:
        """Whether two answers show different states; silence on one side is no difference."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return any(a is not None and b is not None and a != b for a, b in pairs)


class RemoteFile(Protocol):
    """A file that is somewhere else."""

    shown: str  # its address as it may be printed
    head: bytes  # its first bytes, at most HEAD_BYTES
    version: FileVersion  # when it was opened
    has_ranges: bool  # whether its size is known and a part of it can be read

    def read(self, start: int, length: int) -> bytes:
        """Bytes of a part; as many as asked for, or an error."""

    def stream(self, start: int, length: int | None, seen: bytes = b"") -> Iterator[bytes]:
        """The bytes of a part (``None``: up to the end) block by block, if ``seen`` precedes them.

        A server that has something else there is one that lies about ranges.
        """


class RangesUnusableError(SourceError):
    """The server ignores ranges or lies about them; the whole file must be fetched."""

    def __init__(self, shown: str, why: str) -> None:
        super().__init__(f"{shown}: {why}.", hint="Download the file by hand and give its path.")
        self.why = why


class TransientError(Exception):
    """A failure that may pass, if need be after the seconds that the server asks to wait.

    ``lasts``: it seldom does where nothing has arrived yet, as without a network.
    """

    def __init__(
        self, what: str, *, hint: str = "", wait: float = 0.0, lasts: bool = False
    ) -> None:
        super().__init__(what)
        self.hint = hint
        self.wait = wait
        self.lasts = lasts


class Patience:
    """Attempts and time that one file may take."""

    def __init__(self, shown: str, settings: RemoteSettings) -> None:
        self._shown = shown
        self._settings = settings
        self._left = settings.limit_seconds
        self._end = 0.0
        self._failures = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let the time run, from where it stood when it was stopped; failures are forgotten."""
        self._end = time.monotonic() + self._left
        self._failures = 0
        try:
            yield
        finally:
            self._left = self._end - time.monotonic()

    @property
    def left(self) -> float:
        """Seconds until the time is over, and never quite none."""
        return max(0.01, self._end - time.monotonic())

    @property
    def timeout(self) -> float:
        """Longest wait for the next byte."""
        return min(self._settings.stall_seconds, self.left)

    def check_time(self) -> None:
        """Raise if the time is over."""
        if time.monotonic() >= self._end:
            raise SourceError(
                f"{self._shown}: gave up after {self._settings.limit_seconds:,g} s.",
                hint="Run it again: what has arrived is kept where the server allows to resume.",
            )

    def renew(self) -> None:
        """Forget earlier failures: something of size has arrived."""
        self._failures = 0

    def wait_after(self, failure: TransientError, *, arrived: bool = True) -> None:
        """Wait before the next attempt, longer each time; raise if the last has been made."""
        self._failures += 1
        retries = self._settings.retries if arrived or not failure.lasts else 1
        # jitter: many jobs that failed together shall not come back together
        pause = self._settings.backoff_seconds * 2 ** (self._failures - 1)
        pause *= 1 + random.random() / 4  # noqa: S311 - no secret depends on it
        pause = max(pause, failure.wait)
        if self._failures > retries or time.monotonic() + pause > self._end:
            times = f"{self._failures} attempts" if self._failures > 1 else "1 attempt"
            raise SourceError(
                f"{self._shown}: {failure} ({times}).",
                hint=failure.hint or "Check the network and run it again.",
            ) from failure
        time.sleep(pause)


def too_large(shown: str, size: int | None, limit: int) -> SourceError:
    """The error for more bytes than are allowed; ``None`` if the server never said how many."""
    what = "it does not end" if size is None else f"{size:,} bytes are needed"
    return SourceError(
        f"{shown}: {what}, and at most {limit:,} are fetched.",
        hint="Raise `max_bytes=N` if it is right.",
    )


def has_changed(shown: str, since: str, hint: str) -> SourceError:
    """The error for a file of which two answers show two states."""
    return SourceError(f"{shown}: the file changed on the server {since}.", hint=hint)
