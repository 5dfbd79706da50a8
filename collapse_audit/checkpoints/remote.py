"""Checkpoints somewhere else: in parts where that is possible, whole where it is not."""

from __future__ import annotations

from collapse_audit.checkpoints.discovery import HeadLocation, discover_heads
from collapse_audit.checkpoints.loading import prototypes_of
from collapse_audit.checkpoints.ranged_files import RangedIndex, read_index
from collapse_audit.checkpoints.ranged_tensors import RangedReader
from collapse_audit.checkpoints.reading import read_checkpoint
from collapse_audit.checkpoints.selection import select_heads
from collapse_audit.checkpoints.tensors import Checkpoint
from collapse_audit.errors import CheckpointError, SourceError, UnsafePickleError
from collapse_audit.manifest import load_manifest
from collapse_audit.prototypes import Branch, Prototypes
from collapse_audit.storage import (
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
    try:
        return RangedReader(remote, index, settings, reporter).checkpoint()
    except RangesUnusableError as error:
        return read_checkpoint(fetch_file(remote, settings, reporter, why=error.message))


def load_remote_heads(
    remote: Remote,
    settings: StorageSettings,
    *,
    branch: Branch = "teacher",
    head: str | None = None,
    reporter: Reporter | None = None,
) -> tuple[Prototypes, ...]:
    """Load the prototypes of every head of a branch of a remote file.

    Args:
        remote: The file.
        settings: Cache, limits and patience.
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
    reporter = reporter or Reporter()
    checkpoint = read_remote_checkpoint(remote, settings, reporter)
    try:
        return _load(checkpoint, remote, branch, head)
    except RangesUnusableError as error:
        # found out only now that the server gives other bytes than those asked for
        path = fetch_file(remote, settings, reporter, why=error.message)
        return _load(read_checkpoint(path), remote, branch, head)


def _load(
    checkpoint: Checkpoint, remote: Remote, branch: Branch, head: str | None
) -> tuple[Prototypes, ...]:
    heads: tuple[HeadLocation, ...] = discover_heads(checkpoint)
    chosen = select_heads(checkpoint, heads, branch=branch, head=head, spec=remote.name)
    return tuple(prototypes_of(checkpoint, location, remote.name) for location in chosen)


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
