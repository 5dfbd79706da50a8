"""What the user typed -> a checkpoint that is open: the one place where a source is resolved."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from collapse_audit.checkpoints.description import describe
from collapse_audit.checkpoints.families import guess_family
from collapse_audit.checkpoints.loading import load_located
from collapse_audit.checkpoints.locations import HeadLocation
from collapse_audit.checkpoints.selection import select_default, select_heads
from collapse_audit.checkpoints.structure import discover_heads
from collapse_audit.containers import limits
from collapse_audit.containers.byte_source import InMemory, LocalFile
from collapse_audit.containers.opening import read_checkpoint, read_path
from collapse_audit.containers.tensors import Checkpoint
from collapse_audit.errors import NoPrototypesError, ParameterError, SourceError
from collapse_audit.examples import embedded_head
from collapse_audit.manifest import CheckpointEntry, load_manifest
from collapse_audit.manifest.entries import candidate_file_names, fetch_hint
from collapse_audit.prototypes import Branch, Prototypes
from collapse_audit.remote.addresses import Remote, is_remote, remote_of_entry, remote_of_url
from collapse_audit.remote.locking import check_and_record
from collapse_audit.remote.remote_source import open_source
from collapse_audit.remote.reporting import Reporter
from collapse_audit.remote.settings import RemoteSettings
from collapse_audit.words import did_you_mean, megabytes, printable

if TYPE_CHECKING:
    from collapse_audit.report.documents import SourceDocument
    from collapse_audit.report.info_documents import InfoDocument
    from collapse_audit.similarity import Progress

#: The words for the head inside the package and for what a pipe brings.
DEMO: Final = "demo"
STDIN: Final = "-"


@dataclass(frozen=True, eq=False)
class ResolvedSource:
    """A source that was found, its index read and nothing else."""

    # What the user typed; of an absolute path the file name, so that reports can be compared.
    spec: str
    checkpoint: Checkpoint
    file: str  # its name
    entry: CheckpointEntry | None = None  # of the manifest, if the source is an id
    local: LocalFile | None = None  # the file on this machine, if it is one file here
    digest: str | None = None  # the checksum, if it is known already
    remote: Remote | None = None  # if it is somewhere else
    settings: RemoteSettings | None = None  # with which it is fetched

    @property
    def id(self) -> str | None:
        """Manifest id, if it was one."""
        return self.entry.id if self.entry else None

    @cached_property
    def heads(self) -> tuple[HeadLocation, ...]:
        """Every head of the checkpoint, in file order."""
        return discover_heads(self.checkpoint)

    @cached_property
    def family(self) -> str | None:
        """Method family: what the manifest says of an id, else what the layout tells."""
        if self.entry is not None:
            return self.entry.family
        return guess_family(self.checkpoint, [head.name for head in self.heads])

    def select(self, *, branch: Branch, head: str | None) -> tuple[HeadLocation, ...]:
        """Heads of one branch, or the one that a name, a key or the end of a key means."""
        try:
            return select_heads(
                self.checkpoint,
                self.heads,
                branch=branch,
                head=head,
                spec=self.spec,
                file=self.file,
            )
        except NoPrototypesError as error:
            for entry in load_manifest().entries:
                if entry.backbone_url and entry.url and Path(entry.backbone_url).name == self.file:
                    hint = f"Its head is in the full checkpoint {entry.url} (id {entry.id})."
                    raise NoPrototypesError(error.message, hint=hint) from error
            raise

    def load(
        self, heads: Sequence[HeadLocation], *, zero_rows: bool = False
    ) -> tuple[Prototypes, ...]:
        """Read the prototypes of heads; those of a remote file must be what the lock file says."""
        loaded = load_located(
            self.checkpoint, heads, self.spec, family=self.family, zero_rows=zero_rows
        )
        if self.remote is not None and self.settings is not None:
            digests = {
                f"tensor:{key}": digest
                for prototypes in loaded
                for key, digest in prototypes.tensor_sha256
            }
            check_and_record(self.remote, digests, self.settings)
        return loaded

    def document(self) -> SourceDocument:
        """The source in a report without heads."""
        return {"spec": self.spec, "id": self.id, "family": self.family, "sha256": self.sha256()}

    def sha256(self, progress: Progress | None = None) -> str | None:
        """Checksum of the file; ``None`` of a folder, and of an address that was read in parts."""
        return self.local.sha256(progress) if self.local and not self.digest else self.digest


def resolve_source(
    source: str | Path,
    *,
    checkpoint_dir: Path | None = None,
    settings: RemoteSettings | None = None,
    reporter: Reporter | None = None,
) -> ResolvedSource:
    """Find and open what a source means, as :func:`load_prototypes` describes it."""
    # Of its file only the index is read. Files of ids, and paths that are not here, are looked for
    # in checkpoint_dir, then in the cache; settings are by default those of the environment.
    if not isinstance(source, str | Path):
        raise ParameterError(
            f"a source is a path, an id or an address, got {type(source).__name__}.",
            hint="collapse_audit.audit(matrix) takes what is in memory.",
        )
    typed = str(source)
    if not typed:
        raise SourceError("a source without a name.", hint="Give a path, an id or an address.")
    if is_remote(typed):
        settings = settings or RemoteSettings.from_environment()
        return _open_remote(remote_of_url(typed), None, settings, reporter)
    if os.sep in typed or Path(typed).suffix:  # no id has either
        return _open_path(typed, checkpoint_dir)
    if typed == STDIN:
        data = read_stdin()
        digest = hashlib.sha256(data).hexdigest()
        checkpoint = read_checkpoint(InMemory(data), "stdin")
        return ResolvedSource("stdin", checkpoint, "", digest=digest)
    entries = {entry.id: entry for entry in load_manifest().entries}
    entry = entries.get(typed)
    if entry is None and typed != DEMO:
        return _open_path(typed, checkpoint_dir, ids=(DEMO, *entries))
    if Path(typed).exists():
        raise SourceError(
            f"{typed}: is {'an id of the manifest' if entry else 'the demo'} and a file in this "
            "folder.",
            hint=f"Write {os.curdir}{os.sep}{typed} for the file.",
        )
    if entry is None:
        path = embedded_head()
        return ResolvedSource(DEMO, read_path(path, DEMO), path.name, local=LocalFile(path))
    settings = settings or RemoteSettings.from_environment()
    return _open_entry(entry, checkpoint_dir, settings, reporter)


def read_stdin() -> bytearray:
    """All that a pipe brings, up to a limit."""
    pipe = getattr(sys.stdin, "buffer", None)
    if pipe is None:
        raise SourceError("stdin: there is none here.", hint="Give the name of a file.")
    data = bytearray()
    while chunk := pipe.read(1 << 20):
        data += chunk
        if len(data) > limits.PIPE_BYTES:
            raise SourceError(
                f"stdin: more than {megabytes(limits.PIPE_BYTES)}.",
                hint="Save it to a file and name that: of a file only the head is read.",
            )
    return data


def find_remote(source: str) -> Remote:
    """The remote file that an address or a manifest id means; nothing is opened."""
    if source == DEMO:
        raise SourceError("demo: is inside the package; there is nothing to fetch.")
    if is_remote(source):
        return remote_of_url(source)
    return remote_of_entry(load_manifest().get(source))


def load_prototypes(
    source: str | Path, *, branch: Branch = "teacher", head: str | None = None
) -> Prototypes:
    """Load the prototypes of one head.

    Args:
        source: A path of a file, or of a folder that is a checkpoint; an id of the manifest, such
            as ``dino_vits16``; an address (``https://``, ``hf://``, ``s3://`` ...); ``demo``, the
            head inside the package; or ``-``, the bytes of a file on stdin. With a separator or a
            dot in it, it is a path.
        branch: The network, where the method has two. The default, the teacher, is the one that
            the literature audits; a file without one gives the student, with a warning, or its
            single network.
        head: Name of a head, or key of any matrix of the file, or the end of a key that no other
            shares; ``KEY.T`` for the columns of that matrix. By default the image-level head, with
            a warning that names the others.

    Returns:
        Its prototypes.

    Raises:
        SourceError: If there is no such file, folder or id, it cannot be fetched, or a word is the
            name of both a file here and an id.
        CheckpointError: If it is damaged, no checkpoint, or lacks the head or branch.
        UnsafePickleError: If its pickle names something that only an attack needs.
        NoPrototypesError: If no prototypes are found in it.
        PrototypeError: If the prototypes are not finite, of zero norm or fewer than two.
    """
    resolved = resolve_source(source)
    chosen = resolved.select(branch=branch, head=head)
    (prototypes,) = resolved.load([select_default(chosen, resolved.spec)])
    return prototypes


def load_heads(
    source: str | Path,
    *,
    branch: Branch = "teacher",
    head: str | None = None,
    checkpoint_dir: Path | None = None,
) -> tuple[Prototypes, ...]:
    """Load the prototypes of every head of a branch; errors are those of :func:`load_prototypes`.

    Args:
        source: As for :func:`load_prototypes`.
        branch: As for :func:`load_prototypes`.
        head: As for :func:`load_prototypes`, but all heads by default.
        checkpoint_dir: Folder in which the files of ids, and paths that are not here, are looked
            for; after it comes the cache.

    Returns:
        One entry per head, in file order. They are never pooled: heads are independent.
    """
    resolved = resolve_source(source, checkpoint_dir=checkpoint_dir)
    return resolved.load(resolved.select(branch=branch, head=head))


def describe_source(resolved: ResolvedSource) -> InfoDocument:
    """What a source holds, without any mathematics; a file without heads is described too."""
    family = resolved.entry.family if resolved.entry else None
    return describe(resolved.checkpoint, resolved.spec, family)


def _open_path(typed: str, checkpoint_dir: Path | None, ids: Sequence[str] = ()) -> ResolvedSource:
    try:
        path = Path(typed).expanduser()
        spec = path.name if path.is_absolute() else typed
        if not path.exists() and checkpoint_dir is not None:
            path = checkpoint_dir / path
        if path.is_dir():
            return ResolvedSource(spec, read_path(path, printable(typed)), path.name)
        if path.is_file():
            local = LocalFile(path)  # as it is before its index is read
            return ResolvedSource(spec, read_path(path, printable(typed)), path.name, local=local)
        if path.exists():
            raise SourceError(f"{printable(typed)}: is not a regular file.")
        beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    except (OSError, RuntimeError, ValueError) as error:  # a loop, no home, a name too long
        reason = getattr(error, "strerror", None) or printable(error)
        raise SourceError(f"{printable(typed)}: cannot be opened ({reason}).") from error
    close = did_you_mean(path.name, beside, most=1) or did_you_mean(typed, ids)
    raise SourceError(f"{printable(typed)}: no such file.", hint=close or "Check the path.")


def _open_entry(
    entry: CheckpointEntry,
    checkpoint_dir: Path | None,
    settings: RemoteSettings,
    reporter: Reporter | None,
) -> ResolvedSource:
    """The local copy of a manifest row, or else its address."""
    folders = [folder for folder in (checkpoint_dir, settings.cache_dir) if folder is not None]
    for folder in folders:
        for name in candidate_file_names(entry):
            path = folder / name
            if path.is_file():
                local = LocalFile(path)
                checkpoint = read_path(path, entry.id)
                return ResolvedSource(entry.id, checkpoint, name, entry=entry, local=local)
    missing = SourceError(
        f"{entry.id}: its file is not on this machine.", hint=fetch_hint(entry, folders[0])
    )
    try:
        remote = remote_of_entry(entry)
    except SourceError as error:
        raise missing from error
    try:
        return _open_remote(remote, entry, settings, reporter)
    except SourceError as error:
        if type(error) is not SourceError:
            raise
        raise SourceError(error.message, hint=f"{error.hint} {missing.hint}".strip()) from error


def _open_remote(
    remote: Remote,
    entry: CheckpointEntry | None,
    settings: RemoteSettings,
    reporter: Reporter | None,
) -> ResolvedSource:
    source = open_source(remote, settings, reporter or Reporter())
    checkpoint = read_checkpoint(source, remote.name, file=remote.file_name, sibling=source.sibling)
    return ResolvedSource(
        spec=remote.name,
        checkpoint=checkpoint,
        file=remote.file_name,
        entry=entry,
        local=source.local,
        digest=source.sha256,
        remote=remote,
        settings=settings,
    )
