"""Files on the disk: written completely or not at all, JSON, checksums."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from collapse_audit.errors import SourceError

_CHUNK = 1 << 23
_LARGEST_TEXT = 1 << 26  # bytes of a report or an index


@contextmanager
def replacing(path: Path, *, hint: str = "", follow: bool = True) -> Iterator[BinaryIO]:
    """Open a file to write that takes its name when all of it is on the disk, or not at all."""
    # Its folder is made if it is not there. The file has the permissions that a plain ``open``
    # gives; a link stays a link, and what cannot be replaced (``/dev/null``, a pipe) is written to.
    # In a folder of our own (``follow`` is false) a link is replaced, anything else refused. A
    # SourceError with the hint if it cannot be written: what was there before is still there.
    try:
        target = path.resolve() if follow else path
    except (OSError, RuntimeError) as error:
        raise SourceError(f"{path}: cannot be written (a loop of links).", hint=hint) from error
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")  # not to be guessed
    try:
        if not follow:
            refuse_special(path)
        elif path.exists() and not path.is_file():
            with path.open("wb") as file:
                yield file
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:  # never through a link
                yield file
                file.flush()
                os.fsync(file.fileno())
            if target.exists():
                shutil.copymode(target, temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(target.parent)
    except OSError as error:
        raise SourceError(
            f"{path}: cannot be written ({error.strerror or error}).", hint=hint
        ) from error


def write_atomically(
    path: Path, *parts: bytes | memoryview, hint: str = "", follow: bool = True
) -> None:
    """Write the parts of a file completely or not at all, as :func:`replacing` does."""
    with replacing(path, hint=hint, follow=follow) as file:
        file.writelines(parts)


def is_plain_file(path: Path) -> bool:
    """Whether a name is that of a regular file, and of no link to one."""
    return path.is_file() and not path.is_symlink()


def refuse_special(path: Path) -> None:
    """Refuse what is neither a regular file nor a link, such as a pipe, with an ``OSError``."""
    with suppress(FileNotFoundError):
        if not (stat.S_ISREG(mode := path.lstat().st_mode) or stat.S_ISLNK(mode)):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))


def remove_unfinished(*paths: Path) -> None:
    """Remove what killed writers left of these files; nobody may be writing them now."""
    for path in paths:
        for left in path.parent.glob(f".{path.name}.*.tmp"):
            left.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Put a rename in a folder itself on the disk, where the file system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_json(path: Path, value: Any, *, follow: bool = True) -> None:
    """Write plain values as JSON, completely or not at all, as :func:`replacing` does."""
    text = json.dumps(value, indent=1, sort_keys=True) + "\n"
    write_atomically(path, text.encode(), follow=follow)


def read_json(path: Path) -> dict[str, Any] | None:
    """What :func:`write_json` wrote; ``None`` if it is not there or is no JSON object."""
    try:
        value = json.loads(read_bounded(path))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def read_bounded(path: Path, limit: int = _LARGEST_TEXT) -> bytes:
    """A text of at most ``limit`` bytes, or an ``OSError`` if it is larger or cannot be read."""
    # a pipe into which nobody writes is refused at once
    wait = getattr(os, "O_NONBLOCK", 0)  # to open a pipe takes until somebody writes into it
    # Path.open takes no opener
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | wait)) as file:
        if wait:
            os.set_blocking(file.fileno(), True)
        data = file.read(limit + 1)
        if not data and stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "a pipe that nobody writes into", str(path))
    if len(data) > limit:
        raise OSError(errno.EFBIG, "too large for a text of ours", str(path))
    return data


def sha256_of(path: Path, progress: Callable[[str, int, int], object] | None = None) -> str:
    """The SHA-256 of a file in 64 hexadecimal digits, read once in chunks of 8 MiB."""
    # progress: told ("checksum", bytes done, bytes in all), for checkpoints reach several GB
    digest, done, size = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            if progress is not None:
                progress("checksum", done, size)
    return digest.hexdigest()
