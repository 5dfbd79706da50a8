"""What the user typed -> a file, where a manifest id will do as well as a path."""

from __future__ import annotations

import os
from pathlib import Path

from collapse_audit.checkpoints.sources import ResolvedSource, resolve_source
from collapse_audit.errors import SourceError
from collapse_audit.manifest import (
    CheckpointEntry,
    candidate_file_names,
    fetch_hint,
    load_manifest,
)
from collapse_audit.remote import StorageSettings
from collapse_audit.words import did_you_mean


def locate_source(source: str | Path, *, checkpoint_dir: Path | None = None) -> ResolvedSource:
    """Find the file that a path or a manifest id means.

    Args:
        source: A path, or an id such as ``dino_vits16``. With a separator in it, it is a path.
        checkpoint_dir: Folder in which the files of ids, and paths that are not here, are looked
            for; after it comes the cache.

    Returns:
        The file, with the id and family where the source is an id.

    Raises:
        SourceError: If there is no such file or id, the file of an id is not on this machine, or
            a word is the name of both a file here and an id.
    """
    typed = str(source)
    if os.sep in typed or Path(typed).suffix:  # no id has either
        return resolve_source(source, checkpoint_dir=checkpoint_dir)
    entries = {entry.id: entry for entry in load_manifest().entries}
    if typed in entries:
        if Path(typed).exists():
            raise SourceError(
                f"{typed}: is an id of the manifest and a file in this folder.",
                hint=f"Write {os.curdir}{os.sep}{typed} for the file.",
            )
        return _file_of(entries[typed], checkpoint_dir)
    try:
        return resolve_source(source, checkpoint_dir=checkpoint_dir)
    except SourceError as error:
        likely = did_you_mean(typed, entries)
        if not likely or not error.message.endswith("no such file."):
            raise
        raise SourceError(error.message, hint=likely) from error


def full_checkpoint_hint(path: Path) -> str:
    """Where the head of a backbone-only file is.

    Args:
        path: A file without prototypes.

    Returns:
        The address of the full checkpoint, if the manifest knows the file by its name; else "".
    """
    for entry in load_manifest().entries:
        if entry.backbone_url and entry.url and Path(entry.backbone_url).name == path.name:
            return f"Its head is in the full checkpoint {entry.url} (id {entry.id})."
    return ""


def cache_dir() -> Path:
    """Folder in which downloaded files are kept.

    Returns:
        ``$COLLAPSE_AUDIT_CACHE``, else ``collapse-audit`` in the platform's cache folder.
    """
    return StorageSettings.from_environment().cache_dir


def _file_of(entry: CheckpointEntry, checkpoint_dir: Path | None) -> ResolvedSource:
    """The local copy of a manifest entry."""
    folders = [folder for folder in (checkpoint_dir, cache_dir()) if folder is not None]
    for folder in folders:
        for name in candidate_file_names(entry):
            if (folder / name).is_file():
                return ResolvedSource(folder / name, entry.id, entry.id, entry.family)
    raise SourceError(
        f"{entry.id}: its file is not on this machine.", hint=fetch_hint(entry, folders[0])
    )
