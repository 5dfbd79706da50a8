"""Look after the cache: list, verify, clear."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from collapse_audit.errors import SourceError
from collapse_audit.files import is_plain_file, sha256_of
from collapse_audit.remote.cache import FOLDER, HISTORY, RANGES, Index
from collapse_audit.remote.remote_files import FileVersion
from collapse_audit.remote.settings import RemoteSettings
from collapse_audit.remote.transfers import exclusive

Kind = Literal["range", "file", "partial"]


@dataclass(frozen=True, slots=True)
class CacheItem:
    """One file of the cache."""

    source: str  # where it came from, without credentials and query
    kind: Kind  # a part, a whole file, or what an interrupted run has left
    part: str  # first byte and length of a part, such as ``65536-32768``; else empty
    size: int  # bytes on the disk
    sha256: str  # as recorded; empty for a partial file
    path: Path


def cache_items(settings: RemoteSettings) -> tuple[CacheItem, ...]:
    """Everything in the cache, by source; nothing if there is no cache yet."""
    found = (item for folder in _folders(settings) for item in _items(folder))
    return tuple(sorted(found, key=lambda item: (item.source, len(item.part), item.path)))


def verify_cache(settings: RemoteSettings) -> list[tuple[CacheItem, str]]:
    """Each item, its checksum computed again, and what is wrong with it; empty if nothing is."""
    # a partial file is none, for nothing takes it for complete
    items = (item for item in cache_items(settings) if item.kind != "partial")
    return [(item, _problem(item)) for item in items]


def clear_cache(settings: RemoteSettings, keys: tuple[str, ...] | None = None) -> int:
    """Remove folders (by :attr:`Remote.key`) or all, but no lock files; the bytes set free."""
    # a SourceError if something cannot be removed
    freed = 0
    answers = settings.cache_dir / HISTORY
    for folder in [*_folders(settings), *([answers] if answers.is_dir() else [])]:
        if keys is not None and folder.name not in keys:
            continue
        with exclusive(folder, settings):  # not under the feet of a process that fetches it
            freed += sum(_size(path) for path in folder.rglob("*"))
            try:
                shutil.rmtree(folder)
            except OSError as error:
                raise SourceError(
                    f"{folder}: cannot be removed ({error.strerror or error}).",
                    hint="Check the permissions of the folder.",
                ) from None
    return freed


def _folders(settings: RemoteSettings) -> list[Path]:
    root = settings.cache_dir / FOLDER
    return sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []


def _items(folder: Path) -> Iterator[CacheItem]:
    """The files of one folder; those that the index does not name were never completed."""
    index = Index.read(folder) or Index(folder.name, FileVersion(None))
    for path in folder.glob("*/*"):
        digest = index.files.get(path.relative_to(folder).as_posix(), "")
        is_range = path.parent.name == RANGES
        if digest:
            kind: Kind = "range" if is_range else "file"
            part = path.name if is_range else ""
            yield CacheItem(index.source, kind, part, _size(path), digest, path)
        elif path.suffix != ".json":  # else it is the note of a partial file
            yield CacheItem(index.source, "partial", "", _size(path), "", path)


def _problem(item: CacheItem) -> str:
    try:
        matches = is_plain_file(item.path) and sha256_of(item.path) == item.sha256
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    return "" if matches else "its SHA-256 is not the recorded one"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if is_plain_file(path) else 0
    except OSError:  # another process has just renamed it
        return 0
