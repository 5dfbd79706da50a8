"""Files of torch.save, read without executing anything they name."""

from __future__ import annotations

import argparse
import re
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collapse_audit.checkpoints.tensors import (
    Checkpoint,
    Container,
    StoredTensor,
    megabytes,
    printable,
)
from collapse_audit.errors import CheckpointError, CollapseAuditError, UnsafePickleError

if TYPE_CHECKING:
    import torch

_MAX_DEPTH = 12
_MAX_KEY = 1000  # characters; deep wrappers make long keys, but not as long as this
_REFUSED_GLOBAL = re.compile(r"GLOBAL (\S+)")
_REFUSED_CALL = re.compile(
    r"unrecognized function|Can only (?:create|build)|Only persistent_load|Unsupported operand"
)


def read_torch_file(path: Path, container: Container) -> Checkpoint:
    """Read a file of torch.save, mapped into memory where the container allows it.

    Args:
        path: A file that :func:`~collapse_audit.checkpoints.containers.sniff` let through.
        container: ``"zip"`` (mapped: only the tensors asked for are read) or ``"legacy"``.

    Returns:
        Its tensors and options.

    Raises:
        UnsafePickleError: If the pickle names an object outside the allow-list.
        CheckpointError: If the file is damaged or truncated.
    """  # noqa: DOC501  (raised through _explain)
    import torch

    try:
        with (
            torch.serialization.safe_globals(_allowed_globals()),
            warnings.catch_warnings(action="ignore"),  # about pickle protocols; errors still raise
        ):
            # the path, not an open file: only a path can be mapped
            loaded = torch.load(
                str(path), map_location="cpu", weights_only=True, mmap=container == "zip"
            )
        return _checkpoint(loaded, path, container)
    except CollapseAuditError:
        raise
    except Exception as error:
        # Damaged bytes make the unpickler fail in any way there is; all of them mean the same.
        raise _explain(path, error) from error


class _NumpyNumber:
    """Stands in for numpy's dtypes and scalars: learning rates and epochs, which nobody needs.

    numpy's own ``dtype.__setstate__`` trusts its argument: a few wrong bytes crash the process.
    """

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


def _allowed_globals() -> list[Any]:
    """What published checkpoints hold beside tensors: their arguments and numpy numbers."""
    from _codecs import encode

    return [
        argparse.Namespace,
        (_NumpyNumber, "numpy.dtype"),
        (_NumpyNumber, "numpy._core.multiarray.scalar"),  # written by numpy 2
        (_NumpyNumber, "numpy.core.multiarray.scalar"),  # written by numpy 1
        encode,  # the bytes of a numpy scalar, as pickle protocol 2 spells them
    ]


def _explain(path: Path, error: Exception) -> CheckpointError:
    """Turn the unpickler's page of advice (do switch the safety off) into one line."""
    shown, text = printable(path), str(error)
    if named := _REFUSED_GLOBAL.search(text):
        return UnsafePickleError(
            f"{shown}: its pickle names {printable(named[1])}, which is outside the allow-list; "
            "nothing was executed.",
            hint="If you trust where it comes from, save its state dict alone and audit that.",
        )
    reason = printable(_reason(text) or type(error).__name__)
    if _REFUSED_CALL.search(reason):
        return UnsafePickleError(
            f"{shown}: its pickle was refused and nothing was executed: {reason}.",
            hint="If you trust where it comes from, save its state dict alone and audit that.",
        )
    size = megabytes(path.stat().st_size)
    return CheckpointError(
        f"{shown}: a damaged or truncated torch file of {size} ({reason}).",
        hint="Download it again and compare its size with the source.",
    )


def _reason(text: str) -> str:
    """The sentence that tells what happened, out of torch's paragraphs."""
    if text.startswith("Weights only load failed"):
        advice, _, _ = text.partition("Check the documentation of torch.load")
        line = advice.strip().rpartition("\n")[2].rpartition("WeightsUnpickler error: ")[2]
    else:
        line = text.strip().partition("\n")[0]
    return line.strip().rstrip(".")


def _checkpoint(loaded: object, file: Path, container: Container) -> Checkpoint:
    tree = loaded if isinstance(loaded, Mapping) else {"prototypes": loaded}
    tensors: dict[str, StoredTensor] = {}
    for path, tensor in _walk(tree, (), set()):
        stored = StoredTensor(
            path=path,
            shape=tuple(tensor.shape),
            dtype=str(tensor.dtype).removeprefix("torch."),
            storage=(tensor.data_ptr(), tuple(tensor.shape), tensor.stride()),
            read=partial(_read, tensor, f"{printable(file)}: {printable('/'.join(path))}"),
        )
        tensors.setdefault(stored.key, stored)
    args = tree.get("args")
    options = vars(args) if isinstance(args, argparse.Namespace) else args
    return Checkpoint(
        path=file,
        container=container,
        tensors=tensors,
        top_level=tuple(printable(key) for key in tree),
        options=frozenset(map(str, options)) if isinstance(options, Mapping) else frozenset(),
    )


def _walk(
    node: object, path: tuple[str, ...], seen: set[int]
) -> Iterator[tuple[tuple[str, ...], torch.Tensor]]:
    """Every dense tensor below a node; each dictionary once, for they may hold one another."""
    import torch

    if isinstance(node, torch.Tensor):
        # sparse, quantised and meta tensors have no plain memory, and no head is one of them
        if node.layout is torch.strided and node.device.type == "cpu" and not node.is_quantized:
            yield path, node
    elif isinstance(node, Mapping | list | tuple) and len(path) < _MAX_DEPTH:
        if id(node) in seen:
            return
        seen.add(id(node))
        children = node.items() if isinstance(node, Mapping) else enumerate(node)
        for key, child in children:
            if isinstance(child, torch.Tensor | Mapping | list | tuple):
                yield from _walk(child, (*path, printable(key, _MAX_KEY)), seen)


def _read(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """The tensor's own copy, so that the file may go."""
    stored = tensor.untyped_storage().nbytes()
    if tensor.numel() * tensor.element_size() > stored:
        raise CheckpointError(
            f"{name}: a tensor of shape {tuple(tensor.shape)} over only {stored:,} stored bytes.",
            hint="Save the tensor itself, not an expanded view of it.",
        )
    return tensor.detach().clone()
