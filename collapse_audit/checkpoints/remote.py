"""Checkpoints somewhere else: in parts where that is possible, whole where it is not."""

from __future__ import annotations

from pathlib import Path

from collapse_audit.checkpoints.ids import cache_dir
from collapse_audit.checkpoints.loading import heads_of, prototypes_of
from collapse_audit.checkpoints.ranged_files import RangedIndex, read_index
from collapse_audit.checkpoints.ranged_tensors import RangedReader
from collapse_audit.checkpoints.reading import read_checkpoint
from collapse_audit.checkpoints.selection import select_default
from collapse_audit.checkpoints.tensors import Checkpoint
from collapse_audit.errors import CheckpointError, SourceError, UnsafePickleError
from collapse_audit.manifest import candidate_file_names, load_manifest
from collapse_audit.manifest.entries import base_name
from collapse_audit.prototypes import Branch, Prototypes
from collapse_audit.remote import (
    SILENT,
    RangesUnusableError,
    Remote,
    RemoteFile,
    Reporter,
    StorageSettings,
    TensorStore,
    cached_file,
    exclusive,
    fetch_file,
    file_of_other_tools,
    is_remote,
    remote_of_entry,
    remote_of_url,
    try_mirrors,
)


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
    settings: StorageSettings | None = None,
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
    settings = settings or StorageSettings.from_environment()
    folders = [folder for folder in (checkpoint_dir, cache_dir()) if folder is not None]
    names = candidate_file_names(entry)
    if any((folder / name).is_file() for folder in folders for name in names):
        return None
    try:
        remote = remote_of_entry(entry)
    except SourceError:
        return None  # the local search tells how to get it by hand
    if settings.offline and not _is_here(remote, settings):
        return None
    return remote


def _is_here(remote: Remote, settings: StorageSettings) -> bool:
    """Whether something of it is in a cache."""
    return (
        TensorStore(remote, settings).index() is not None
        or cached_file(remote, settings) is not None
        or file_of_other_tools(remote, SILENT) is not None
    )


def read_remote_checkpoint(
    remote: Remote, settings: StorageSettings, reporter: Reporter | None = None
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
    reporter = reporter or Reporter()
    path = cached_file(remote, settings) or file_of_other_tools(remote, reporter)
    if path is not None:
        return read_checkpoint(path)
    index, why = None, "its SHA-256 is to be verified"
    if remote.sha256 is None:
        index, why = _index(remote, settings, reporter)
    if index is None:
        return read_checkpoint(fetch_file(remote, settings, reporter, why=why))
    return RangedReader(remote, index, settings, reporter).checkpoint()


def load_remote_heads(
    remote: Remote,
    settings: StorageSettings | None = None,
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
    settings: StorageSettings | None = None,
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
    settings: StorageSettings | None,
    reporter: Reporter | None,
    *,
    branch: Branch,
    head: str | None,
    only_default: bool,
) -> tuple[Prototypes, ...]:
    settings = settings or StorageSettings.from_environment()
    reporter = reporter or Reporter()

    def load(checkpoint: Checkpoint) -> tuple[Prototypes, ...]:
        name = Path(base_name(remote.urls[0]))
        chosen = heads_of(checkpoint, name, remote.name, branch=branch, head=head)
        if only_default:
            chosen = (select_default(chosen, remote.name),)
        return tuple(
            prototypes_of(checkpoint, location, remote.name, remote.family) for location in chosen
        )

    try:
        return load(read_remote_checkpoint(remote, settings, reporter))
    except RangesUnusableError as error:
        # found out only now that the server gives other bytes than those asked for
        return load(read_checkpoint(fetch_file(remote, settings, reporter, why=error.message)))


def _index(
    remote: Remote, settings: StorageSettings, reporter: Reporter
) -> tuple[RangedIndex | None, str]:
    """The index, from the cache or the server; without one, why the whole file is needed."""
    store = TensorStore(remote, settings)
    if index := RangedIndex.from_dict(store.index() or {}):
        return index, ""
    if settings.offline:
        fetch_file(remote, settings, reporter)  # tells that it is not in the cache
    with exclusive(store.folder, settings):
        if index := RangedIndex.from_dict(store.index() or {}):
            return index, ""
        index, why = try_mirrors(remote, _read_index, settings, reporter)
        if index is not None:
            store.put_index(index.to_dict(remote.lock_key))
    return index, why


def _read_index(file: RemoteFile) -> tuple[RangedIndex | None, str]:
    if not file.has_ranges:
        return None, "the server ignores ranges"
    try:
        index = read_index(file)
    except RangesUnusableError:
        return None, "the server does not answer ranges properly"
    except UnsafePickleError:
        raise
    except CheckpointError:
        # a damaged file, or a server that says it sends one range and sends another?
        if _sends_true_ranges(file):
            raise
        return None, "the server does not answer ranges properly"
    return index, "its container cannot be read in parts"


def _sends_true_ranges(file: RemoteFile) -> bool:
    """Whether a part of the first bytes is what was seen there before."""
    middle = len(file.head) // 2
    try:
        return file.read(middle, len(file.head) - middle) == file.head[middle:]
    except SourceError:
        return False
