"""Write files completely or not at all, under a lock, and resume what was interrupted."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from collapse_audit.errors import SourceError
from collapse_audit.remote.remote_files import RangesUnusableError, RemoteFile, too_large
from collapse_audit.remote.reporting import Reporter
from collapse_audit.remote.settings import StorageSettings

_OVERLAP = 1024


@contextmanager
def exclusive(folder: Path, settings: StorageSettings) -> Iterator[None]:
    """Let one process at a time work on a folder of the cache.

    The lock is one of the operating system: it goes with the process, however that ends.

    Args:
        folder: The folder; made if it is not there.
        settings: How long to wait.

    Yields:
        Nothing; the lock is held meanwhile.

    Raises:
        SourceError: If it cannot be had in time, or the cache cannot be written.
    """  # noqa: DOC501  (made by the functions below)
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(folder.name + ".lock"), timeout=settings.limit_seconds)
        lock.acquire()
    except Timeout:
        raise SourceError(
            f"{folder.name}: another process has been fetching it for "
            f"{settings.limit_seconds:,.0f} s.",
            hint="Wait for it, or stop it and run this again.",
        ) from None
    except OSError as error:
        raise _unwritable(folder, error) from None
    try:
        yield
    finally:
        lock.release()


def write_atomically(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file under a temporary name and rename it when it is on the disk.

    Args:
        path: Its final name; the folder is made if it is not there.
        *parts: Its content.

    Raises:
        SourceError: If it cannot be written.
    """  # noqa: DOC501  (made by the functions below)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _unwritable(path, error) from None


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, completely or not at all.

    Args:
        path: The file.
        value: Plain values.
    """
    write_atomically(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """Read what :func:`write_json` wrote.

    Args:
        path: The file.

    Returns:
        Its content; ``None`` if it is not there or is no JSON object.
    """
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def fetch_part(
    file: RemoteFile,
    start: int,
    length: int | None,
    partial: Path,
    *,
    settings: StorageSettings,
    reporter: Reporter,
) -> None:
    """Bring a part of a remote file to the disk, going on where an earlier run was stopped.

    What is there is used only if the server shows, by size and tag or date, that the file is
    still the same. The caller renames ``partial`` once it has checked it.

    Args:
        file: The remote file.
        start: First byte.
        length: Number of bytes; ``None`` for all that follow.
        partial: Where the bytes go; a note beside it says what they belong to.
        settings: The largest size allowed.
        reporter: Shows the progress.

    Raises:
        SourceError: If the transfer fails for good, or the part is too large.
    """  # noqa: DOC501  (made by the functions below)
    if length is not None and length > settings.max_bytes:
        raise too_large(file.shown, length, settings.max_bytes)
    note = partial.with_name(partial.name + ".json")
    version = file.version
    belongs = {
        "start": start,
        "length": length,
        "size": version.size,
        "etag": version.etag,
        "modified": version.modified,
    }
    done = _bytes_there(partial, note, belongs, length) if version.is_checkable else 0
    if done and not _goes_on(file, partial, start, done):
        done = 0
    if not done:
        partial.unlink(missing_ok=True)
        write_json(note, belongs)
    rest = None if length is None else length - done
    try:
        with partial.open("ab") as out, reporter.bar(file.shown, length, done) as update:
            for block in file.stream(start + done, rest):
                out.write(block)
                out.flush()
                update(len(block))
            os.fsync(out.fileno())
    except OSError as error:
        raise _unwritable(partial, error) from None


def publish(partial: Path, path: Path) -> None:
    """Give a complete and checked file its final name.

    Args:
        partial: What :func:`fetch_part` has written.
        path: The final name, in the same folder.

    Raises:
        SourceError: If it cannot be renamed.
    """  # noqa: DOC501  (made by the functions below)
    try:
        partial.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from None
    discard(partial)


def discard(partial: Path) -> None:
    """Remove a partial file and its note.

    Args:
        partial: The partial file.
    """
    partial.unlink(missing_ok=True)
    partial.with_name(partial.name + ".json").unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal.

    Args:
        path: The file.

    Returns:
        64 digits.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _bytes_there(partial: Path, note: Path, belongs: dict[str, Any], length: int | None) -> int:
    """How much of a partial file can be used."""
    if read_json(note) != belongs or not partial.is_file():
        return 0
    size = partial.stat().st_size
    return size if length is None or size <= length else 0


def _goes_on(file: RemoteFile, partial: Path, start: int, done: int) -> bool:
    """Whether the server has, where the partial file ends, what is there."""
    length = min(done, _OVERLAP)
    with partial.open("rb") as existing:
        existing.seek(done - length)
        end = existing.read()
    try:
        return file.read(start + done - length, length) == end
    except RangesUnusableError:
        return False


def _sync_folder(folder: Path) -> None:
    """Put the rename itself on the disk; only where folders can be opened."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _unwritable(path: Path, error: OSError) -> SourceError:
    return SourceError(
        f"{path}: cannot be written ({error.strerror or error}).",
        hint="Choose another folder with --cache-dir or COLLAPSE_AUDIT_CACHE.",
    )
