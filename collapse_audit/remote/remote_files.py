"""What every kind of remote file can do, and the rules they share."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from collapse_audit.errors import SourceError
from collapse_audit.remote.settings import StorageSettings

HEAD_BYTES = 512


@dataclass(frozen=True, slots=True)
class FileVersion:
    """What tells one state of a remote file from another.

    Attributes:
        size: In bytes, if known.
        etag: The server's tag, if it gives one.
        modified: The server's time of the last change, if it gives one.
    """

    size: int | None
    etag: str | None = None
    modified: str | None = None

    @property
    def is_checkable(self) -> bool:
        """Whether a change could be noticed; only then is a download resumed."""
        return self.size is not None and bool(self.etag or self.modified)

    def differs_from(self, other: FileVersion) -> bool:
        """Whether two answers are about different states; silence on one side is no difference.

        Args:
            other: The other answer.

        Returns:
            True if any value that both have is not the same.
        """
        pairs = (
            (self.size, other.size),
            (self.etag, other.etag),
            (self.modified, other.modified),
        )
        return any(a is not None and b is not None and a != b for a, b in pairs)


class RemoteFile(Protocol):
    """A file that is somewhere else.

    Attributes:
        shown: Its address as it may be printed.
        head: Its first bytes, at most 512.
        version: Its state when it was opened.
        has_ranges: Whether a part of it can be read.
    """

    shown: str
    head: bytes
    version: FileVersion
    has_ranges: bool

    def read(self, start: int, length: int) -> bytes:
        """Bytes of a part; as many as asked for, or an error."""

    def stream(self, start: int, length: int | None) -> Iterator[bytes]:
        """The bytes of a part (``None``: up to the end) in blocks of at most 1 MiB."""


class RangesUnusableError(SourceError):
    """The server ignores ranges or lies about them; the whole file must be fetched."""


class TransientError(Exception):
    """A failure that may pass.

    Attributes:
        what: What happened.
        hint: What the user can do if it does not pass.
        wait: Seconds that the server asked to wait, if it did.
    """

    def __init__(self, what: str, *, hint: str = "", wait: float | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.wait = wait


class Patience:
    """Attempts and time that one file may take."""

    def __init__(self, shown: str, settings: StorageSettings) -> None:
        self._shown = shown
        self._settings = settings
        self._end = time.monotonic() + settings.limit_seconds
        self._failures = 0

    @property
    def timeout(self) -> float:
        """Longest wait for the next byte."""
        return max(0.01, min(self._settings.stall_seconds, self._end - time.monotonic()))

    def check_time(self) -> None:
        """Raise if the time is over.

        Raises:
            SourceError: If it is.
        """
        if time.monotonic() >= self._end:
            raise SourceError(
                f"{self._shown}: gave up after {self._settings.limit_seconds:,g} s.",
                hint="Run it again: what has arrived is kept where the server allows to resume.",
            )

    def renew(self) -> None:
        """Forget earlier failures: something of size has arrived."""
        self._failures = 0

    def wait_after(self, failure: TransientError) -> None:
        """Wait before the next attempt, longer each time.

        Args:
            failure: What went wrong.

        Raises:
            SourceError: If there have been too many, or the wait would be too long.
        """
        self._failures += 1
        # jitter: many jobs that failed together shall not come back together
        pause = self._settings.backoff_seconds * 2 ** (self._failures - 1)
        pause *= 1 + random.random() / 4  # noqa: S311 - no secret depends on it
        pause = max(pause, failure.wait or 0)
        if self._failures > self._settings.retries or time.monotonic() + pause > self._end:
            times = f"{self._failures} attempts" if self._failures > 1 else "1 attempt"
            raise SourceError(
                f"{self._shown}: {failure.what} ({times}).",
                hint=failure.hint or "Check the network and run it again.",
            ) from failure
        time.sleep(pause)


def too_large(shown: str, size: int | None, limit: int) -> SourceError:
    """The error for a file that is larger than allowed.

    Args:
        shown: Its address as it may be printed.
        size: Its size; ``None`` if the server never said.
        limit: The largest size allowed.

    Returns:
        The error, to be raised.
    """
    what = f"has {size:,} bytes" if size is not None else "does not end"
    return SourceError(
        f"{shown}: {what}, and at most {limit:,} are fetched.",
        hint="Raise --max-bytes if it is right.",
    )
