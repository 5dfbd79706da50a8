"""Why a file shows no prototypes, and what to do about it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from collapse_audit.checkpoints.obstacles import candidates, no_prototypes
from collapse_audit.errors import NoPrototypesError
from collapse_audit.sources import load_heads, load_prototypes
from tests.small_checkpoints import WEIGHT, checkpoint_of

Shapes = dict[str, tuple[int, ...]]


def said(shapes: Shapes, file: str = "x.pth", **changes: tuple[str, ...]) -> str:
    error = no_prototypes(replace(checkpoint_of(shapes), **changes), "x.pth", file)
    assert isinstance(error, NoPrototypesError)
    assert "\n" not in str(error)
    assert error.hint
    return str(error)


def test_one_matrix_without_rows_is_no_shard() -> None:
    assert "DeepSpeed" not in said({"prototypes": (0, 8)})


def test_a_backbone_says_which_keys_it_has_and_what_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "backbone.pth"
    torch.save({f"blocks.{i}.weight": torch.ones(2, 2) for i in range(9)}, path)
    with pytest.raises(
        NoPrototypesError,
        match=r"keys are blocks\.0\.weight, .* and 3 more\. Backbone-only.*full training checkp",
    ):
        load_heads(path)


@pytest.mark.parametrize(
    "key",
    ["blocks.0.attn.qkv.weight", "layer1.0.conv1.weight", "features.3.weight", "stages.2.x.weight",
     "teacher/backbone.patch_embed.proj.weight", "model.encoder.layer.0.weight"],
)  # fmt: skip
def test_backbones_of_every_kind_are_called_that(key: str) -> None:
    assert "Backbone-only" in said({key: (16, 16)})


@pytest.mark.parametrize(
    "shapes", [{"net.weight": (5, 5), "net.bias": (5,)}, {}, {"decoder.weight": (9, 3)}]
)
def test_only_backbones_are_called_that(shapes: Shapes) -> None:
    text = said(shapes)
    assert "Backbone-only" not in text
    assert "`collapse-audit info --all` lists what it holds; `head=KEY` takes any matrix" in text


def test_matrices_that_end_a_head_are_named(tmp_path: Path) -> None:
    path = tmp_path / "scan.pth"
    torch.save({f"cluster_head.{i}.weight": torch.eye(9, 5) for i in range(2)}, path)
    with pytest.raises(
        NoPrototypesError, match=r"name it with `head=KEY`: .*cluster_head\.1\.weigh"
    ):
        load_prototypes(path)
    shapes: Shapes = {"backbone.head.weight": (9, 5), "blocks.0.head.weight": (9, 5)}
    assert candidates(checkpoint_of(shapes)) == ["backbone.head.weight"]


def test_keys_with_control_characters_are_shown_escaped(tmp_path: Path) -> None:
    path = tmp_path / "ansi.pth"
    torch.save({"\x1b[31mred\nline": WEIGHT, "x" * 500: WEIGHT}, path)
    with pytest.raises(NoPrototypesError, match=r"\\x1b\[31mred\\nline, x+…") as caught:
        load_prototypes(path)
    assert "\x1b" not in str(caught.value)


PARTS: dict[str, tuple[Shapes, str, dict[str, tuple[str, ...]], str]] = {
    "FSDP": ({"model/teacher._fsdp_wrapped_module._flat_param": (500,)}, "model.rank_0.pth", {},
             r"one rank's shard of an FSDP run.*teacher_checkpoint\.pth"),
    "DTensor": ({"teacher/norm.weight": (4,)}, "x.pth",
                {"unread": ("torch.distributed.tensor.DTensor",)},
                "its weights are DTensors.*Give the folder.*full_tensor"),
    "ShardedTensor": ({}, "x.pth", {"unread": ("a.b.ShardedTensor", "a.DTensor")},
                      "DTensor and ShardedTensors"),
    "ZeRO placeholders": ({"a.weight": (0,), "b.weight": (0,)}, "x.pth", {}, r"zero_to_fp32\.py"),
    "ZeRO states": ({"a.weight": (4, 4)}, "x.pt", {"top_level": ("module", "ds_config")},
                    r"a shard of DeepSpeed ZeRO.*zero_to_fp32\.py"),
    "one of many": ({"a.weight": (4, 4)}, "model-00001-of-00004.safetensors", {},
                    r"one shard of a checkpoint in several files.*index\.json"),
}  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
def test_parts_of_a_checkpoint_are_called_what_they_are(name: str) -> None:
    import re

    shapes, file, changes, message = PARTS[name]
    text = said(shapes, file, **changes)
    assert re.search(message, text), text
    assert "Backbone-only" not in text
