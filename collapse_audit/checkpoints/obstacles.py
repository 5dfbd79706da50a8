"""Why a checkpoint shows no prototypes, and what to do about it."""

from __future__ import annotations

import re

from collapse_audit.checkpoints.families import WITHOUT_PROTOTYPES, guess_family
from collapse_audit.checkpoints.keys import layers_of, numbered_chains
from collapse_audit.containers.tensors import Checkpoint
from collapse_audit.errors import NoPrototypesError
from collapse_audit.words import printable

_SHOWN = 6
_FULL = "For DINOv2, give eval/*/teacher_checkpoint.pth; else save a full state dict of all ranks."
_ZERO = "Run DeepSpeed's zero_to_fp32.py in the folder of the run, and give the file it writes."
_FEATURES = "`collapse-audit mlcd SOURCE --data DATA` measures the features."
_BACKBONE = re.compile(
    r"""(?:^|\.)(?:patch_embed|cls_token|pos_embed|blocks\.\d+|layers\.\d+\.blocks|conv1|bn1
      |layer[1-4]\.\d+|stages?\.\d+|encoder\.layers?\.\d+|embeddings|stem|features\.\d+
      |transformer\.h\.\d+|conv_stem)\b""",
    re.VERBOSE | re.MULTILINE,
)
_ONE_OF_MANY = re.compile(r"\d+-of-\d+")


def no_prototypes(checkpoint: Checkpoint, spec: str, file: str = "") -> NoPrototypesError:
    """The error for a checkpoint in which no head was found: what the file is, and what to do."""
    if part := _part_of_something(checkpoint, file):
        what, hint = part
        return NoPrototypesError(f"{spec}: {what}.", hint=hint)
    if method := WITHOUT_PROTOTYPES.get(guess_family(checkpoint, ()) or ""):
        return NoPrototypesError(f"{spec}: {method} trains without prototypes.", hint=_FEATURES)
    keys = list(checkpoint.tensors) or list(checkpoint.top_level)
    seen = ", ".join(printable(key, 60) for key in keys[:_SHOWN]) or "none"
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    if others := [name for name in checkpoint.unread if "tensor" in name]:
        more += f"; not read were {', '.join(printable(name, 60) for name in others[:_SHOWN])}"
    if likely := candidates(checkpoint):
        hint = (
            "If one of its matrices is the prototype layer, name it with `head=KEY`: "
            f"{', '.join(likely)}. `collapse-audit info --all` lists every matrix."
        )
    elif _BACKBONE.search("\n".join(keys)):
        hint = f"Backbone-only releases have none: use the full training checkpoint. {_FEATURES}"
    else:
        hint = "`collapse-audit info --all` lists what it holds; `head=KEY` takes any matrix."
    return NoPrototypesError(
        f"{spec}: no prototypes in this file; its keys are {seen}{more}.", hint=hint
    )


def features_alone(family: str | None) -> str:
    """Why of a source nothing but features is measured."""
    method = WITHOUT_PROTOTYPES.get(family or "")
    why = f"{method} trains without prototypes" if method else "This file holds no prototypes"
    return f"{why}: there are no classes to count, and the numbers are of the features alone."


def _part_of_something(checkpoint: Checkpoint, file: str) -> tuple[str, str] | None:
    """What a file is a part of, if its keys tell, and what to do."""
    kinds = {name.rpartition(".")[2] for name in checkpoint.unread}
    sharded = sorted(kinds & {"DTensor", "ShardedTensor"})
    text = "\n".join(checkpoint.tensors)
    empty = sum(0 in tensor.shape for tensor in checkpoint.tensors.values())
    zero = {"param_shapes", "ds_config", "ds_version", "zero_stage"} & set(checkpoint.top_level)
    for recognised, what, hint in (
        (
            "flat_param" in text,
            "one rank's shard of an FSDP run: its parameters are flat pieces of all",
            _FULL,
        ),
        (
            bool(sharded),
            f"its weights are {' and '.join(sharded)}s, of which each rank's file holds a shard",
            "Give the folder that torch.distributed.checkpoint wrote, or save full_tensor() of "
            f"each. {_FULL}",
        ),
        (
            bool(zero)
            or "fp32_flat_groups" in text
            or empty > max(1, len(checkpoint.tensors) // 2),
            "a shard of DeepSpeed ZeRO: the weights themselves are in other files",
            _ZERO,
        ),
        (
            _ONE_OF_MANY.search(file) is not None,
            "one shard of a checkpoint in several files, without the prototypes",
            "Give its folder, or its index (*.index.json).",
        ),
    ):
        if recognised:
            return what, hint
    return None


def candidates(checkpoint: Checkpoint) -> list[str]:
    """Keys of matrices that end a head, though nothing else speaks for prototypes."""
    layers = layers_of(checkpoint.tensors)
    chains = numbered_chains(layers)
    found = []
    for layer in layers:
        weight = layer.weight
        if weight is None or not weight.is_float_matrix or weight.shape[0] < 2:
            continue
        chain = chains.get(layer.owner, [])
        last = not layer.name.isdecimal() or (bool(chain) and chain[-1] is layer)
        heads = any("head" in part or "cluster" in part or "proj" in part for part in layer.scope)
        inner = any(_BACKBONE.search(f"{part}.0") for part in layer.scope)
        if last and heads and not inner and weight.shape[0] > weight.shape[1]:
            found.append(printable(weight.key, 80))
    return found[-3:]
