"""Bring parts of remote files to the disk: one process at a time, resumed if interrupted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from collapse_audit.errors import SourceError
from collapse_audit.files import is_plain_file, read_json, refuse_special, sync_folder, write_json
from collapse_audit.remote.remote_files import RangesUnusableError, RemoteFile, too_large
from collapse_audit.remote.reporting import Reporter
from collapse_audit.remote.settings import RemoteSettings

_OVERLAP = 1024


@contextmanager
def exclusive(folder: Path, settings: RemoteSettings) -> Iterator[None]:
    """Let one process at a time work on a folder of the cache, which is made if need be."""
    from filelock import FileLock, Timeout

    try:  # the lock is the operating system's: it goes with the process, however that ends
        folder.mkdir(parents=True, exist_ok=True)
        path = folder.with_name(folder.name + ".lock")
        refuse_special(path)
        if path.is_symlink():  # the lock file is emptied, and so would be what a link leads to
            path.unlink()
        lock = FileLock(path, timeout=settings.limit_seconds)
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


def fetch_part(
    file: RemoteFile,
    start: int,
    length: int | None,
    partial: Path,
    *,
    settings: RemoteSettings,
    reporter: Reporter,
) -> None:
    """Bring a part (``None``: up to the end) to the disk, going on where a run was stopped."""
    # What is there is used only if the server shows, by size and tag or date, that the file is
    # still the same, and has the same bytes at its end. The caller renames it once it is checked.
    # RangesUnusableError: the server does not send this part, and nothing of it is left.
    if length is not None and length > settings.max_bytes:
        raise too_large(file.shown, length, settings.max_bytes)
    note = _note(partial)
    belongs = {"start": start, "length": length, **asdict(file.version)}
    done, seen = 0, b""
    try:
        if file.version.is_checkable and read_json(note) == belongs:
            done, seen = _end_of(partial, length)
        if not done:
            write_json(note, belongs, follow=False)
            refuse_special(partial)
            partial.unlink(missing_ok=True)
        with partial.open("ab" if done else "xb") as out:
            rest = None if length is None else length - done
            with reporter.bar(file.shown, length, done) as update:
                for block in file.stream(start + done, rest, seen):
                    out.write(block)
                    out.flush()
                    update(len(block))
            os.fsync(out.fileno())
    except RangesUnusableError:
        discard(partial)
        if not done:
            raise
        fetch_part(file, start, length, partial, settings=settings, reporter=reporter)
    except OSError as error:
        raise _unwritable(partial, error) from None


def publish(partial: Path, path: Path) -> None:
    """Give a complete and checked file its final name in the same folder."""
    try:
        refuse_special(path)
        partial.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from None
    discard(partial)


def discard(partial: Path) -> None:
    """Remove a partial file and its note."""
    partial.unlink(missing_ok=True)
    _note(partial).unlink(missing_ok=True)


def _note(partial: Path) -> Path:
    return partial.with_name(partial.name + ".json")


def _end_of(partial: Path, length: int | None) -> tuple[int, bytes]:
    """How much of a partial file can be used, and what comes last in it."""
    size = partial.stat().st_size if is_plain_file(partial) else 0
    if not size or (length is not None and size > length):
        return 0, b""
    with partial.open("rb") as existing:
        existing.seek(max(0, size - _OVERLAP))
        return size, existing.read()


def _unwritable(path: Path, error: OSError) -> SourceError:
    return SourceError(
        f"{path}: cannot be written ({error.strerror or error}).",
        hint="Choose another folder with `cache_dir=FOLDER` or COLLAPSE_AUDIT_CACHE.",
    )
