"""What is in a checkpoint, without any mathematics."""

from __future__ import annotations

from collections import Counter

from collapse_audit.checkpoints.causes import centres, notes_on_training
from collapse_audit.checkpoints.families import guess_family
from collapse_audit.checkpoints.keys import WRAPPERS
from collapse_audit.checkpoints.loading import notes_on
from collapse_audit.checkpoints.selection import heads_by_default
from collapse_audit.checkpoints.structure import default_head, discover_heads
from collapse_audit.containers.tensors import FLOATING, Checkpoint, StoredTensor
from collapse_audit.report.documents import INFO_SCHEMA, SCHEMA_VERSION
from collapse_audit.report.info_documents import InfoDocument, KeyCount, ModuleCount


def describe(checkpoint: Checkpoint, spec: str, family: str | None = None) -> InfoDocument:
    """The content of ``collapse-audit info --json``; a file without heads is described too."""
    heads = discover_heads(checkpoint)
    audited = heads_by_default(checkpoint, heads)
    default = default_head(audited) if audited else None
    tensors = checkpoint.tensors.values()
    family = family or guess_family(checkpoint, (head.name for head in heads))
    return {
        "schema": INFO_SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "source": {"spec": spec, "family": family},
        "container": checkpoint.container,
        "size": checkpoint.size,
        "top_level": _count_top_level(checkpoint),
        "tree": _count_modules(checkpoint),
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
                "default": head is default,
                "audited": head in audited,
                "notes": [*head.notes, *filter(None, [head.undecided])],
            }
            for head in heads
        ],
        "centre_keys": [tensor.key for tensor in centres(checkpoint)],
        "matrices": [
            {"key": t.key, "shape": list(t.shape), "dtype": t.dtype}
            for t in tensors
            if _is_matrix(t)
        ],
        "notes": [*notes_on(checkpoint), *notes_on_training(checkpoint, heads)],
    }


def _is_matrix(tensor: StoredTensor) -> bool:
    return len(tensor.shape) in (2, 3) and 0 not in tensor.shape and tensor.dtype in FLOATING


def _count_top_level(checkpoint: Checkpoint) -> list[KeyCount]:
    counts = Counter(tensor.path[0] for tensor in checkpoint.tensors.values())
    is_flat = all(len(tensor.path) == 1 for tensor in checkpoint.tensors.values())
    keys = checkpoint.top_level
    if is_flat and len(counts) == len(keys):  # of a flat state dict the modules, not the tensors
        counts = Counter(_module(tensor.path[0]) for tensor in checkpoint.tensors.values())
        keys = tuple(counts)
    return [{"key": key, "tensors": counts[key]} for key in keys]


def _count_modules(checkpoint: Checkpoint) -> list[ModuleCount]:
    found: dict[str, ModuleCount] = {}
    for tensor in checkpoint.tensors.values():
        # one line for an optimiser's thousand states, one per module of a network
        folders = "/".join(tensor.path[:-1][:2])
        nested = len(tensor.path) > 3
        module = folders if nested else "/".join((folders, _module(tensor.path[-1]))).lstrip("/")
        count = found.setdefault(module, {"module": module, "tensors": 0, "values": 0})
        count["tensors"] += 1
        count["values"] += tensor.size
    return list(found.values())


def _module(key: str) -> str:
    """The first part of a dotted key that names a module, with the wrapper's part before it."""
    parts = key.split(".")
    return ".".join(parts[: 2 if parts[0] in WRAPPERS else 1])
