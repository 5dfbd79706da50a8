"""What is in a checkpoint, without any mathematics."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from collapse_audit.checkpoints.families import guess_family
from collapse_audit.checkpoints.keys import WRAPPERS
from collapse_audit.checkpoints.loading import notes_on
from collapse_audit.checkpoints.selection import heads_by_default
from collapse_audit.checkpoints.structure import HeadLocation, default_head, discover_heads
from collapse_audit.containers import FLOATING, Checkpoint, Container, StoredTensor
from collapse_audit.report.documents import INFO_SCHEMA, SCHEMA_VERSION, InfoDocument

_CENTRE = re.compile(r"(?:.+[./])?center(?:2|_grid)?")


@dataclass(frozen=True, slots=True, eq=False)
class CheckpointDescription:
    """What a checkpoint holds."""

    spec: str  # what the user asked for
    container: Container
    size: int  # bytes of all its files
    family: str | None  # where the layout tells
    # each key of the outermost dictionary and the number of tensors below it; in a flat state dict
    # these are modules, not tensors
    top_level: tuple[tuple[str, int], ...]
    # each module and the number of its tensors and values, two levels deep
    tree: tuple[tuple[str, int, int], ...]
    heads: tuple[HeadLocation, ...]  # none in a backbone
    audited: frozenset[HeadLocation]  # unless told otherwise
    default: HeadLocation | None  # the one that :func:`~collapse_audit.load_prototypes` takes
    centre_keys: tuple[str, ...]  # of stored centres of the teacher's logits
    matrices: tuple[tuple[str, tuple[int, ...], str], ...]  # key, shape and type of each
    notes: tuple[str, ...] = ()  # what a reader should know of the file

    def to_dict(self) -> InfoDocument:
        """The content of ``collapse-audit info --json``."""
        return {
            "schema": INFO_SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "source": {"spec": self.spec, "family": self.family},
            "container": self.container,
            "size": self.size,
            "top_level": [{"key": key, "tensors": count} for key, count in self.top_level],
            "tree": [
                {"module": module, "tensors": count, "values": values}
                for module, count, values in self.tree
            ],
            "heads": [
                {
                    "name": head.name,
                    "branch": head.branch,
                    "k": head.k,
                    "d": head.d,
                    "dtype": head.dtype,
                    "parametrisation": head.parametrisation,
                    "tensor_keys": list(head.tensor_keys),
                    "aliases": list(head.aliases),
                    "default": head is self.default,
                    "audited": head in self.audited,
                    "notes": list(head.notes),
                }
                for head in self.heads
            ],
            "centre_keys": list(self.centre_keys),
            "matrices": [
                {"key": key, "shape": list(shape), "dtype": dtype}
                for key, shape, dtype in self.matrices
            ],
            "notes": list(self.notes),
        }


def describe(checkpoint: Checkpoint, spec: str, family: str | None = None) -> CheckpointDescription:
    """What is in a checkpoint, to be called ``spec``; one without heads is described too."""
    heads = discover_heads(checkpoint)
    audited = heads_by_default(checkpoint, heads)
    tensors = checkpoint.tensors.values()
    return CheckpointDescription(
        spec=spec,
        container=checkpoint.container,
        size=checkpoint.size,
        family=family or guess_family(checkpoint, (head.name for head in heads)),
        top_level=_count_top_level(checkpoint),
        tree=_count_modules(checkpoint),
        heads=heads,
        audited=frozenset(audited),
        default=default_head(audited) if audited else None,
        centre_keys=tuple(
            t.key for t in tensors if _CENTRE.fullmatch(t.key) and t.dtype in FLOATING
        ),
        matrices=tuple((t.key, t.shape, t.dtype) for t in tensors if _is_matrix(t)),
        notes=notes_on(checkpoint),
    )


def _is_matrix(tensor: StoredTensor) -> bool:
    return len(tensor.shape) in (2, 3) and 0 not in tensor.shape and tensor.dtype in FLOATING


def _count_top_level(checkpoint: Checkpoint) -> tuple[tuple[str, int], ...]:
    counts = Counter(tensor.path[0] for tensor in checkpoint.tensors.values())
    is_flat = all(len(tensor.path) == 1 for tensor in checkpoint.tensors.values())
    if is_flat and len(counts) == len(checkpoint.top_level):
        counts = Counter(_module(tensor.path[0]) for tensor in checkpoint.tensors.values())
        return tuple(counts.items())
    return tuple((key, counts[key]) for key in checkpoint.top_level)


def _count_modules(checkpoint: Checkpoint) -> tuple[tuple[str, int, int], ...]:
    tensors: Counter[str] = Counter()
    values: Counter[str] = Counter()
    for tensor in checkpoint.tensors.values():
        # one line for an optimiser's thousand states, one per module of a network
        folders = "/".join(tensor.path[:-1][:2])
        nested = len(tensor.path) > 3
        module = folders if nested else "/".join((folders, _module(tensor.path[-1]))).lstrip("/")
        tensors[module] += 1
        values[module] += tensor.size
    return tuple((module, tensors[module], values[module]) for module in tensors)


def _module(key: str) -> str:
    """The first part of a dotted key that names a module, with the wrapper's part before it."""
    parts = key.split(".")
    return ".".join(parts[: 2 if parts[0] in WRAPPERS else 1])
