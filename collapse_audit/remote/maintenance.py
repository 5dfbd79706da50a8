"""Look after the cache: list, verify, clear."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from collapse_audit.errors import IntegrityError, SourceError
from collapse_audit.remote.settings import StorageSettings
from collapse_audit.remote.tensor_store import read_stored
from collapse_audit.remote.whole_files import PROVENANCE
from collapse_audit.remote.writing import exclusive, read_json, sha256_of


@dataclass(frozen=True, slots=True)
class CacheItem:
    """One tensor or file of the cache.

    Attributes:
        source: Where it came from, without credentials and query.
        kind: ``"tensor"``, ``"file"``, or ``"partial"`` for what an interrupted run has left.
        key: Key of the tensor; empty for files.
        size: Bytes on the disk.
        sha256: As recorded; empty for a partial file.
        path: Where it is.
    """

    source: str
    kind: Literal["tensor", "file", "partial"]
    key: str
    size: int
    sha256: str
    path: Path


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an item of the cache is what was stored.

    Attributes:
        item: The item.
        problem: What is wrong with it; empty if nothing is.
    """

    item: CacheItem
    problem: str


def cache_items(settings: StorageSettings) -> tuple[CacheItem, ...]:
    """Everything in the cache.

    Args:
        settings: Where the cache is.

    Returns:
        Its items by source; empty if there is no cache yet.
    """
    found = [*_tensors(settings.cache_dir / "heads"), *_files(settings.cache_dir / "files")]
    return tuple(sorted(found, key=lambda item: (item.source, item.kind, item.key)))


def verify_cache(settings: StorageSettings) -> tuple[Verdict, ...]:
    """Compute every checksum again.

    Args:
        settings: Where the cache is.

    Returns:
        A verdict for each item; a partial file is none, for nothing takes it for complete.
    """
    items = (item for item in cache_items(settings) if item.kind != "partial")
    return tuple(Verdict(item, _problem(item)) for item in items)


def clear_cache(settings: StorageSettings, keys: tuple[str, ...] | None = None) -> int:
    """Remove what the cache holds; lock files stay.

    Args:
        settings: Where the cache is.
        keys: Folders of :attr:`Remote.key` to remove; ``None`` for all.

    Returns:
        Bytes set free.

    Raises:
        SourceError: If something cannot be removed.
    """
    freed = 0
    for kind in ("heads", "files"):
        for folder in _folders(settings.cache_dir / kind):
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


def _tensors(root: Path) -> Iterator[CacheItem]:
    for folder in _folders(root):
        index = read_json(folder / "index.json") or {}
        source = str(index.get("source", folder.name))
        for path in folder.iterdir():
            if path.suffix == ".safetensors":
                key, digest = _header(path)
                yield CacheItem(source, "tensor", key, _size(path), digest, path)
            elif path.suffix in {".partial", ".tmp"}:
                yield CacheItem(source, "partial", "", _size(path), "", path)


def _files(root: Path) -> Iterator[CacheItem]:
    for folder in _folders(root):
        about = read_json(folder / PROVENANCE) or {}
        source = str(about.get("source", folder.name))
        for path in folder.iterdir():
            if path.suffix == ".json":
                continue
            complete = bool(about) and path.suffix not in {".partial", ".tmp"}
            digest = str(about.get("sha256", "")) if complete else ""
            yield CacheItem(
                source, "file" if complete else "partial", "", _size(path), digest, path
            )


def _header(path: Path) -> tuple[str, str]:
    """Key and checksum as a stored tensor states them, without reading its values."""
    try:
        with path.open("rb") as file:
            length = min(int.from_bytes(file.read(8), "little"), 1 << 20)
            header = json.loads(file.read(length))
        about = header["__metadata__"]
        return str(about["collapse_audit.key"]), str(about["collapse_audit.sha256"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return path.name, ""


def _problem(item: CacheItem) -> str:
    try:
        if item.kind == "tensor":
            read_stored(item.path)
        elif sha256_of(item.path) != item.sha256:
            return "its SHA-256 is not the recorded one"
    except IntegrityError as error:
        return error.message
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    return ""


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:  # another process has just renamed it
        return 0
