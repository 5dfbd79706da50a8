"""What the user typed -> a file."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from collapse_audit.checkpoints.tensors import printable
from collapse_audit.errors import SourceError


@dataclass(frozen=True, slots=True)
class ResolvedSource:
    """A source that was found.

    Attributes:
        path: The file.
        spec: What the user typed, for reports; of an absolute path only the file name, so that
            reports can be shared and compared.
        id: Manifest id, if it was one.
        family: Method family, if the manifest knows it.
    """

    path: Path
    spec: str
    id: str | None = None
    family: str | None = None


def resolve_source(source: str | Path, *, checkpoint_dir: Path | None = None) -> ResolvedSource:
    """Find the file that a source means.

    Args:
        source: A path; ``~`` is expanded.
        checkpoint_dir: Folder in which a path that is not here is looked for as well.

    Returns:
        The file and what to call it in reports.

    Raises:
        SourceError: If there is no such file, or it is a directory.
    """
    typed = str(source)
    try:
        path = Path(source).expanduser()
        if not path.exists() and checkpoint_dir is not None:
            path = checkpoint_dir / path
        if path.is_dir():
            raise SourceError(
                f"{printable(typed)}: is a directory, not a checkpoint file.", hint=_in_folder(path)
            )
        if path.is_file():
            return ResolvedSource(path, Path(source).name if path.is_absolute() else typed)
        if path.exists():
            raise SourceError(f"{printable(typed)}: is not a regular file.")
    except (OSError, RuntimeError, ValueError) as error:  # a loop, no home, a name too long
        reason = getattr(error, "strerror", None) or printable(error)
        raise SourceError(f"{printable(typed)}: cannot be opened ({reason}).") from error
    raise SourceError(f"{printable(typed)}: no such file.", hint=_did_you_mean(path))


def _in_folder(folder: Path) -> str:
    """A hint for those who gave the folder of a run."""
    if (folder / ".metadata").exists():
        return (
            "It looks like a distributed checkpoint: convert it with "
            "python -m torch.distributed.checkpoint.format_utils dcp_to_torch DIRECTORY FILE."
        )
    return "Give one file inside it."


def _did_you_mean(path: Path) -> str:
    try:
        names = [other.name for other in path.parent.iterdir() if other.is_file()]
    except OSError:
        names = []
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"Did you mean {printable(path.parent / close[0])}?" if close else "Check the path."
