"""Checkpoints somewhere else: in parts where that is possible, whole where it is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from collapse_audit.checkpoints.ids import cache_dir
from collapse_audit.checkpoints.loading import heads_of, prototypes_of
from collapse_audit.checkpoints.ranged_files import read_index
from collapse_audit.checkpoints.ranged_tensors import RangedReader
from collapse_audit.checkpoints.reading import read_checkpoint
from collapse_audit.checkpoints.selection import select_default
from collapse_audit.checkpoints.tensors import Checkpoint
from collapse_audit.errors import SourceError
from collapse_audit.manifest import candidate_file_names, load_manifest
from collapse_audit.manifest.entries import base_name
from collapse_audit.prototypes import Branch, Prototypes
from collapse_audit.remote import (
    Remote,
    RemoteSettings,
    RemoteSource,
    Reporter,
    fetch_file,
    is_cached,
    is_remote,
    open_source,
    remote_of_entry,
    remote_of_url,
)
from collapse_audit.remote.remote_files import FileVersion


class _Opened:
    """A remote source as the index reader wants it."""

    has_ranges = True

    def __init__(self, source: RemoteSource) -> None:
        self.shown = source.remote.name
        self.version = FileVersion(source.size)
        self.head = source.read(0, min(512, source.size))
        self.read = source.read

    def stream(self, start: int, length: int | None, seen: bytes = b"") -> Iterator[bytes]:
        yield seen + self.read(start, length or 0)


def find_remote(source: str) -> Remote:
    """The remote file that an address or a manifest id means.

    Args:
        source: An address, such as ``https://...`` or ``hf://...``, or an id.

    Returns:
        Where it is; nothing has been opened.

    Raises:
        SourceError: If it is no usable address, or the file must be fetched by hand.
        ManifestError: If there is no such id.
    """
    return (
        remote_of_url(source) if is_remote(source) else remote_of_entry(load_manifest().get(source))
    )


def remote_for(
    source: str | Path,
    *,
    checkpoint_dir: Path | None = None,
    settings: RemoteSettings | None = None,
) -> Remote | None:
    """The remote file that a source means, unless it means a file of this machine.

    Args:
        source: What the user typed.
        checkpoint_dir: Where local copies of the files of ids may be.
        settings: Where the cache is, and whether connections are allowed.

    Returns:
        The remote file of an address, or of an id without a local copy; ``None`` for paths, for
        local copies, and for ids of which neither the network nor the cache can give the file.

    Raises:
        SourceError: If it is no usable address.
    """
    if is_remote(source):
        return remote_of_url(str(source))
    entry = next((entry for entry in load_manifest().entries if entry.id == str(source)), None)
    if entry is None or Path(source).exists():
        return None
    settings = settings or RemoteSettings.from_environment()
    folders = [folder for folder in (checkpoint_dir, cache_dir()) if folder is not None]
    names = candidate_file_names(entry)
    if any((folder / name).is_file() for folder in folders for name in names):
        return None
    try:
        remote = remote_of_entry(entry)
    except SourceError:
        return None  # the local search tells how to get it by hand
    if settings.offline and not is_cached(remote, settings):
        return None
    return remote


def read_remote_checkpoint(
    remote: Remote, settings: RemoteSettings, reporter: Reporter | None = None
) -> Checkpoint:
    """Open a remote checkpoint; the tensors it describes are fetched when they are read.

    Of a zip file of torch.save and of safetensors only the index and those tensors are fetched.
    Other containers, servers without ranges, and files whose SHA-256 the manifest knows (only the
    whole file can be compared with it) are downloaded. What was fetched is in the cache, and so
    is the index: a second call needs no network.

    Args:
        remote: The file.
        settings: Cache, limits and patience.
        reporter: Told when a file must be downloaded whole, and how large it is.

    Returns:
        The checkpoint.

    Raises:
        SourceError: If it cannot be fetched.
        IntegrityError: If it is not the file of the manifest or of the lock file.
        CheckpointError: If it is damaged or no checkpoint.
        UnsafePickleError: If its pickle names something outside the allow-list.
    """
    source = open_source(remote, settings, reporter or Reporter())
    if source.local_path is not None:
        return read_checkpoint(source.local_path)
    file = _Opened(source)
    index = read_index(file)
    if index is None:
        why = "its container cannot be read in parts"
        return read_checkpoint(fetch_file(remote, settings, reporter or Reporter(), why=why))
    return RangedReader(remote, file, index, settings).checkpoint()


def load_remote_heads(
    remote: Remote,
    settings: RemoteSettings | None = None,
    *,
    branch: Branch = "teacher",
    head: str | None = None,
    reporter: Reporter | None = None,
) -> tuple[Prototypes, ...]:
    """Load the prototypes of every head of a branch of a remote file.

    Args:
        remote: The file.
        settings: Cache, limits and patience; by default those of the environment.
        branch: The network, where the method has two.
        head: Name of a head, or key of any matrix of the file; all heads by default.
        reporter: Told what is fetched.

    Returns:
        One entry per head, in file order; the same as of the local file.

    Raises:
        SourceError: If it cannot be fetched.
        CheckpointError: If it is damaged, no checkpoint, or lacks the head or branch.
        PrototypeError: If the prototypes are not finite, of zero norm or fewer than two.
    """
    return _load(remote, settings, reporter, branch=branch, head=head, only_default=False)


def load_remote_prototypes(
    remote: Remote,
    settings: RemoteSettings | None = None,
    *,
    branch: Branch = "teacher",
    head: str | None = None,
    reporter: Reporter | None = None,
) -> Prototypes:
    """Load the prototypes of one head of a remote file; nothing of its other heads is fetched.

    Args:
        remote: The file.
        settings: Cache, limits and patience; by default those of the environment.
        branch: The network, where the method has two.
        head: Name of a head, or key of any matrix of the file; the image-level head by default.
        reporter: Told what is fetched.

    Returns:
        Its prototypes.

    Raises:
        SourceError: If it cannot be fetched.
        CheckpointError: If it is damaged, no checkpoint, or lacks the head or branch.
        PrototypeError: If the prototypes are not finite, of zero norm or fewer than two.
    """
    (prototypes,) = _load(remote, settings, reporter, branch=branch, head=head, only_default=True)
    return prototypes


def _load(
    remote: Remote,
    settings: RemoteSettings | None,
    reporter: Reporter | None,
    *,
    branch: Branch,
    head: str | None,
    only_default: bool,
) -> tuple[Prototypes, ...]:
    settings = settings or RemoteSettings.from_environment()
    reporter = reporter or Reporter()

    def load(checkpoint: Checkpoint) -> tuple[Prototypes, ...]:
        name = Path(base_name(remote.urls[0]))
        chosen = heads_of(checkpoint, name, remote.name, branch=branch, head=head)
        if only_default:
            chosen = (select_default(chosen, remote.name),)
        return tuple(
            prototypes_of(checkpoint, location, remote.name, remote.family) for location in chosen
        )

    return load(read_remote_checkpoint(remote, settings, reporter))
