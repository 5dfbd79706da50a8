"""What the user typed -> the checkpoints of a run, in the order of step or epoch."""

from __future__ import annotations

import glob
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final, Literal, TypeAlias

from collapse_audit.containers.opening import is_checkpoint_folder, read_path
from collapse_audit.errors import CollapseAuditError, CollapseAuditWarning, SourceError
from collapse_audit.remote.addresses import is_remote
from collapse_audit.words import printable, redact

Unit: TypeAlias = Literal["step", "epoch", "checkpoint"]

_DEEPEST: Final = 4
_NUMBER: Final = re.compile(r"\d+")
#: A number that its name explains, such as ``epoch=3-step=400``; a step wins over an epoch.
_NAMED: Final = re.compile(r"(?<![a-z])(step|iter(?:ation)?|epoch|ep)[=_-]?(\d+)", re.IGNORECASE)
_WEIGHTS: Final = re.compile(r"\.(pth|pt|ckpt|bin|safetensors|npy|npz|pth\.tar)$", re.IGNORECASE)
#: What lies beside weights and holds none, and pieces that only their whole explains.
_OTHER: Final = re.compile(
    r"(\.|tmp-|optim|sched|rng_|random_states|scaler|training_args|state\.pt$|queue)|.*(\.rank_|-of-)\d"
)
#: The checkpoint of a run that has no number: the last one.
_LAST: Final = re.compile(r"(.*[-_])?(checkpoint|last|latest|final|head|model)(\.\w+)*$")


@dataclass(frozen=True, slots=True)
class RunFile:
    """One checkpoint of a run: a file, or a folder that is one."""

    path: Path
    name: str  # relative to the run, with ``/``
    number: int | None  # its step or epoch; ``None``: the last one
    unit: Unit  # what its name calls the number

    @property
    def label(self) -> str:
        """Such as ``step 400``; without a number its name."""
        return self.name if self.number is None else f"{self.unit} {self.number}"


def find_checkpoints(sources: str | Path | Sequence[str | Path]) -> tuple[RunFile, ...]:
    """The checkpoints that folders, globs and files mean, in the order of step or epoch.

    Args:
        sources: Folders of runs, globs, or checkpoints. Of a folder the largest set of files whose
            names differ only in a number is taken, and the unnumbered last one beside it.

    Returns:
        At least one; those without a number stand last.

    Raises:
        SourceError: If there is no such file, or a folder or glob has no checkpoint.
    """
    listed = list(sources) if isinstance(sources, list | tuple) and sources else [sources]
    found: list[Path] = []
    for source in listed:
        if not isinstance(source, str | Path) or not str(source):
            kind = type(source).__name__
            raise SourceError(f"a run is a folder, a glob or files, got {kind}.")
        if is_remote(source):
            raise SourceError(
                f"{redact(str(source))}: a run is a folder, a glob or files of this machine.",
                hint="Fetch its checkpoints first.",
            )
        found += (path.absolute() for path in _of_source(source))
    root = Path(str(listed[0])).expanduser().absolute()
    if len(listed) > 1 or not root.is_dir():
        root = Path(os.path.commonpath([path.parent for path in found]))
    files = [_run_file(path, root) for path in dict.fromkeys(found)]
    return tuple(sorted(files, key=lambda file: (file.number is None, file.number or 0)))


def newest_checkpoint(source: str | Path) -> str | Path:
    """The newest checkpoint of a run folder or glob; any other source as it is."""
    try:
        path = Path(source).expanduser()
        if path.is_dir():
            with suppress(CollapseAuditError):
                read_path(path, str(path))
                return source  # it is a checkpoint itself
        elif not _is_glob(source):
            return source
        return find_checkpoints(source)[-1].path
    except (OSError, RuntimeError, ValueError, CollapseAuditError):
        return source  # whoever opens it says what is wrong


def _of_source(source: str | Path) -> list[Path]:
    try:
        path = Path(source).expanduser()
        if path.is_dir():
            return _of_folder(path)
        if path.exists():
            return [path]
        if not _is_glob(source):
            raise SourceError(f"{printable(source)}: no such file.", hint="Check the path.")
        # a path may be absolute, which Path.glob refuses
        matches = [Path(m) for m in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207
        found = [m for m in matches if m.is_file() and _is_weights(m.name)]
        found += [file for m in matches if m.is_dir() for file in _of_folder(m)]
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or printable(error)
        raise SourceError(f"{printable(source)}: cannot be opened ({reason}).") from error
    if not found:
        raise SourceError(f"{printable(source)}: matches no checkpoint.", hint="Check the pattern.")
    return found


def _is_glob(source: str | Path) -> bool:
    return glob.has_magic(str(source)) and not Path(source).exists() and "://" not in str(source)


def _is_weights(name: str) -> bool:
    return bool(_WEIGHTS.search(name)) and not _OTHER.match(name)


def _of_folder(folder: Path) -> list[Path]:
    """The checkpoints of a run: one set of numbered names, and the last one."""
    is_one = is_checkpoint_folder(folder)
    inside = [p for p in _walk(folder) if not (is_one and p.parent == folder and p.is_file())]
    sets: dict[str, list[Path]] = {}
    for path in inside:
        sets.setdefault(_pattern(path.relative_to(folder)), []).append(path)
    numbered = sorted((kind for kind in sets if "#" in kind), key=lambda kind: -len(sets[kind]))
    if not numbered:
        unnumbered = [path for path in inside if _LAST.match(path.name)] or inside
        if is_one or unnumbered:
            return [folder] if is_one else unnumbered
        raise SourceError(
            f"{printable(folder)}: holds no checkpoint.",
            hint="Names such as checkpoint0040.pth or checkpoint-100/ are looked for, "
            f"{_DEEPEST} folders deep; files can be named one by one.",
        )
    chosen, *others = numbered
    if others:
        more = ", ".join(f"{printable(kind)} ({len(sets[kind])})" for kind in others[:5])
        warnings.warn(
            f"took the {len(sets[chosen])} checkpoints {printable(chosen)} of "
            f"{printable(folder)}; it also has {more}",
            CollapseAuditWarning,
            stacklevel=2,
        )
    near = {folder, *(path.parent for path in sets[chosen])}
    last = [p for p in inside if "#" not in _pattern(p.relative_to(folder)) and p.parent in near]
    return [*sets[chosen], *(p for p in last if _LAST.match(p.name)), *([folder] * is_one)]


def _walk(folder: Path, depth: int = _DEEPEST) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.is_symlink() and not _OTHER.match(entry.name):
            if is_checkpoint_folder(entry):
                yield entry
            elif depth:
                yield from _walk(entry, depth - 1)
        elif entry.is_file() and _is_weights(entry.name):
            yield entry


def _pattern(path: PurePath) -> str:
    """A relative path with ``#`` for the numbers of its deepest numbered part."""
    parts = list(path.parts)
    for at in _deepest_numbered(parts):
        parts[at] = _NUMBER.sub("#", parts[at])
    return "/".join(parts)


def _run_file(path: Path, root: Path) -> RunFile:
    parts = path.relative_to(root).parts
    number: int | None = None
    unit: Unit = "checkpoint"
    for at in _deepest_numbered(parts):
        named = {kind.lower()[:2]: value for kind, value in _NAMED.findall(parts[at])}
        step = named.get("st") or named.get("it")
        unit = "step" if step else "epoch" if named else "checkpoint"
        number = int((step or named.get("ep") or _NUMBER.findall(parts[at])[-1])[:18])
    return RunFile(path, "/".join(parts) or path.name, number, unit)


def _deepest_numbered(parts: Sequence[str]) -> list[int]:
    return [at for at, part in enumerate(parts) if _NUMBER.search(part)][-1:]
