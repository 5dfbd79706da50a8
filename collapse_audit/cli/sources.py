"""What the user named -> the file, and what a report says of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collapse_audit.audit import Source
    from collapse_audit.manifest import CheckpointEntry
    from collapse_audit.prototypes import Prototypes
    from collapse_audit.similarity import Progress

#: The word for the head inside the package.
DEMO: Final = "demo"

_CHUNK: Final = 1 << 23


@dataclass(frozen=True, slots=True)
class FoundSource:
    """A file to measure.

    Attributes:
        path: The file.
        described: The source as a report names it.
        entry: Row of the manifest, if the source was its id.
    """

    path: Path
    described: Source
    entry: CheckpointEntry | None = None

    def checksummed(self, family: str | None, progress: Progress) -> FoundSource:
        """The same with the checksum of the file, and the family where it was unknown.

        Args:
            family: What the layout of the file tells.
            progress: Told how far the work is, in bytes.

        Returns:
            A new value.
        """
        checksum = file_sha256(self.path, progress)
        family = self.described.family or family
        return replace(self, described=replace(self.described, family=family, sha256=checksum))

    def source_of(self, prototypes: Prototypes, epsilon: float) -> Source:
        """The source of one head, with the published counts that can be compared with it.

        Args:
            prototypes: The head.
            epsilon: Of the audit; counts at another one are left out, and so are those of
                another K. Counts that state neither are kept.

        Returns:
            What a report says.
        """
        from collapse_audit.audit import Published

        comparable = tuple(
            Published(count.unique, count.source + (", second hand" if count.second_hand else ""))
            for count in (self.entry.published if self.entry else ())
            if count.k in (None, prototypes.k) and count.epsilon in (None, epsilon)
        )
        return replace(self.described, published=comparable)


def find_source(source: str, checkpoint_dir: Path | None) -> FoundSource:
    """Find a path or a manifest id.

    Args:
        source: What the user typed.
        checkpoint_dir: Where the files of ids are.

    Returns:
        The file.
    """
    from collapse_audit.audit import Source
    from collapse_audit.checkpoints.ids import locate_source
    from collapse_audit.manifest import load_manifest

    found = locate_source(source, checkpoint_dir=checkpoint_dir)
    entry = load_manifest().get(found.id) if found.id else None
    return FoundSource(found.path, Source(found.spec, found.id, found.family), entry)


def embedded_source() -> FoundSource:
    """The head inside the package; a report calls it ``demo``."""
    from collapse_audit.audit import Source
    from collapse_audit.examples import embedded_head

    return FoundSource(embedded_head(), Source(spec=DEMO))


def file_sha256(path: Path, progress: Progress) -> str:
    """Checksum of a file, read once in chunks of 8 MiB.

    Args:
        path: An existing file.
        progress: Told how far the work is, in bytes: checkpoints reach several GB.

    Returns:
        64 hexadecimal digits.
    """
    digest, done, size = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            progress("checksum", done, size)
    return digest.hexdigest()
