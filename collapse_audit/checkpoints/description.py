"""What is in a file, without any mathematics."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from collapse_audit.checkpoints.discovery import HeadLocation, default_head, discover_heads
from collapse_audit.checkpoints.ids import locate_source
from collapse_audit.checkpoints.layouts import guess_family
from collapse_audit.checkpoints.reading import read_checkpoint
from collapse_audit.checkpoints.tensors import Checkpoint, Container
from collapse_audit.report.documents import InfoDocument, InfoHead

_CENTRE = re.compile(r"(?:.+[./])?center(?:2|_grid)?")


@dataclass(frozen=True, slots=True, eq=False)
class CheckpointDescription:
    """What a file holds.

    Attributes:
        spec: What the user asked for.
        container: How the file is packed.
        size: Bytes of the file.
        family: Method family, where the layout tells.
        top_level: Each key of the outermost dictionary and the number of tensors below it. In a
            flat state dict these are modules, not tensors.
        tree: Each module and the number of its tensors and values, two levels deep.
        heads: Heads found; empty for a backbone.
        default: Name and branch of the head that is audited unless told otherwise.
        centre_keys: Keys of stored centres of the teacher's logits.
    """

    spec: str
    container: Container
    size: int
    family: str | None
    top_level: tuple[tuple[str, int], ...]
    tree: tuple[tuple[str, int, int], ...]
    heads: tuple[HeadLocation, ...]
    default: tuple[str, str | None] | None
    centre_keys: tuple[str, ...]

    def to_dict(self) -> InfoDocument:
        """Everything as JSON types.

        Returns:
            The content of ``collapse-audit info --json``.
        """
        heads: list[InfoHead] = [
            {
                "name": head.name,
                "branch": head.branch,
                "k": head.k,
                "d": head.d,
                "dtype": head.dtype,
                "parametrisation": head.parametrisation,
                "tensor_keys": list(head.tensor_keys),
                "aliases": list(head.aliases),
                "default": (head.name, head.branch) == self.default,
            }
            for head in self.heads
        ]
        return {
            "schema": "collapse-audit/info",
            "schema_version": "1.0",
            "source": {"spec": self.spec, "family": self.family},
            "container": self.container,
            "size": self.size,
            "top_level": [{"key": key, "tensors": count} for key, count in self.top_level],
            "tree": [
                {"module": module, "tensors": count, "values": values}
                for module, count, values in self.tree
            ],
            "heads": heads,
            "centre_keys": list(self.centre_keys),
        }


def describe(path: str | Path) -> CheckpointDescription:
    """Look into a checkpoint.

    Args:
        path: The file.

    Returns:
        Container, keys and heads. A file without heads is described too.

    Raises:
        SourceError: If there is no such file.
        CheckpointError: If it is damaged or no checkpoint.
    """
    source = locate_source(path)
    checkpoint = read_checkpoint(source.path)
    heads = discover_heads(checkpoint)
    preferred = tuple(head for head in heads if head.branch != "student") or heads
    default = default_head(preferred) if preferred else None
    return CheckpointDescription(
        spec=source.spec,
        container=checkpoint.container,
        size=source.path.stat().st_size,
        family=guess_family(checkpoint, (head.name for head in heads)),
        top_level=_count_top_level(checkpoint),
        tree=_count_modules(checkpoint),
        heads=heads,
        default=(default.name, default.branch) if default else None,
        centre_keys=tuple(
            tensor.key
            for tensor in checkpoint.tensors.values()
            if _CENTRE.fullmatch(tensor.key) and tensor.dtype.startswith(("float", "bfloat"))
        ),
    )


def _count_top_level(checkpoint: Checkpoint) -> tuple[tuple[str, int], ...]:
    counts = Counter(tensor.path[0] for tensor in checkpoint.tensors.values())
    is_flat = all(len(tensor.path) == 1 for tensor in checkpoint.tensors.values())
    if is_flat and len(counts) == len(checkpoint.top_level):
        counts = Counter(_module(tensor.path[0], 1) for tensor in checkpoint.tensors.values())
        return tuple(counts.items())
    return tuple((key, counts[key]) for key in checkpoint.top_level)


def _count_modules(checkpoint: Checkpoint) -> tuple[tuple[str, int, int], ...]:
    tensors: Counter[str] = Counter()
    values: Counter[str] = Counter()
    for tensor in checkpoint.tensors.values():
        # one line for an optimiser's thousand states, one per module of a network
        folders = "/".join(tensor.path[:-1][:2])
        nested = len(tensor.path) > 3
        module = folders if nested else "/".join((folders, _module(tensor.path[-1], 1))).lstrip("/")
        tensors[module] += 1
        values[module] += tensor.size
    return tuple((module, tensors[module], values[module]) for module in tensors)


def _module(key: str, depth: int) -> str:
    """The first parts of a dotted key that name a module, with the wrapper's part before it."""
    parts = key.split(".")
    depth += parts[0] in ("module", "_orig_mod", "_fsdp_wrapped_module")
    return ".".join(parts[:depth])
