"""Every layout that a method repository writes, built small and with values that can be told apart.

Each layer has its own numbers, made from its seed, so that only the right tensor passes.
"""

from __future__ import annotations

import argparse
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

K, D = 12, 8
Head = tuple[str | None, str]


def values(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator)


def normed(module: str, seed: int, *, k: int = K, new_style: bool = False) -> dict[str, Any]:
    names = (
        ("parametrizations.weight.original0", "parametrizations.weight.original1")
        if new_style
        else ("weight_g", "weight_v")
    )
    scale, direction = values(seed + 1000, k, 1).abs() + 0.5, values(seed, k, D)
    return {f"{module}.{names[0]}": scale, f"{module}.{names[1]}": direction}


def plain(module: str, seed: int, *, bias: bool = False, k: int = K) -> dict[str, Any]:
    layer = {f"{module}.weight": values(seed, k, D)}
    if bias:
        layer[f"{module}.bias"] = values(seed + 2000, k)
    return layer


def mlp(module: str) -> dict[str, Any]:
    return {f"{module}.{i}.{p}": values(77, D, D) for i in (0, 2, 4) for p in ("weight", "bias")}


def backbone(prefix: str = "backbone.") -> dict[str, Any]:
    return {
        f"{prefix}patch_embed.proj.weight": values(70, D, 3, 2, 2),
        f"{prefix}blocks.0.mlp.fc1.weight": values(71, 4 * D, D),
        f"{prefix}norm.weight": values(72, D),
    }


def ddp(state: dict[str, Any], prefix: str = "module.") -> dict[str, Any]:
    return {prefix + key: tensor for key, tensor in state.items()}


def dino(seed: int, **style: Any) -> dict[str, Any]:
    return backbone() | mlp("head.mlp") | normed("head.last_layer", seed, **style)


def extras() -> dict[str, Any]:
    """What training scripts save beside the networks."""
    return {
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_small", lr=np.float64(0.1), nested={"a": [1, None]}),
        "optimizer": {
            "state": {0: {"exp_avg": values(90, K, D), "step": 3}},
            "param_groups": [{"lr": np.float64(5e-4), "weight_decay": np.float32(0.04)}],
        },
    }


def shared_ibot(seed: int) -> dict[str, Any]:
    state = backbone() | mlp("head.mlp") | normed("head.last_layer", seed)
    for part in ("weight_g", "weight_v"):
        state[f"head.last_layer2.{part}"] = state[f"head.last_layer.{part}"]
    return state


def lightly_ibot() -> dict[str, Any]:
    teacher, student = normed("head.last_layer", 1), normed("head.last_layer", 2)
    names = {"teacher_head": teacher, "teacher_cls_head": teacher, "teacher_patch_head": teacher}
    names |= {"student_head": student}
    return {
        key.replace("head.", f"{name}.", 1): tensor
        for name, state in names.items()
        for key, tensor in state.items()
    }


@dataclass
class Layout:
    tree: Any
    heads: dict[Head, int]
    default: Head
    family: str | None
    bias: bool = False
    sizes: dict[str, int] = field(default_factory=dict)


TEACHER_STUDENT: dict[Head, int] = {("teacher", "head"): 1, ("student", "head"): 2}
FRANCA = {f"dino_head.{i}": 2 * (i + 1) for i in range(3)} | {"ibot_head.0": 40}


def franca() -> dict[str, Any]:
    state: dict[str, Any] = {"matryoshka_projections.0.weight": values(60, D, D)}
    for seed, (name, k) in enumerate(FRANCA.items()):
        module, index = name.split(".")
        state |= normed(f"{module}.last_layers.{index}", seed, k=k)
    return state


LAYOUTS = {
    "DINO": Layout(
        {"student": ddp(dino(2)), "teacher": dino(1), **extras()},
        TEACHER_STUDENT,
        ("teacher", "head"),
        "dino",
    ),
    "DINO with BatchNorm: the teacher is wrapped too": Layout(
        {"student": ddp(dino(2)), "teacher": ddp(dino(1))},
        TEACHER_STUDENT,
        ("teacher", "head"),
        "dino",
    ),
    "DINO saved with the new weight norm": Layout(
        {"teacher": dino(1, new_style=True)},
        {("teacher", "head"): 1},
        ("teacher", "head"),
        "dino",
    ),
    "DINO ResNet-50: a plain last layer": Layout(
        {"teacher": mlp("head.mlp") | plain("head.last_layer", 1), "student": ddp(dino(2))},
        TEACHER_STUDENT,
        ("teacher", "head"),
        "dino",
    ),
    "DINO before June 2021": Layout(
        {"teacher": backbone("") | mlp("head.projection_head") | normed("head.prototypes", 1)},
        {("teacher", "head"): 1},
        ("teacher", "head"),
        "dino",
    ),
    "DINO, the student only": Layout(
        {"student": ddp(dino(1))}, {("student", "head"): 1}, ("student", "head"), "dino"
    ),
    "iBOT with a shared head": Layout(
        {"student": ddp(shared_ibot(2)), "teacher": shared_ibot(1), **extras()},
        TEACHER_STUDENT,
        ("teacher", "head"),
        "ibot",
    ),
    "iBOT with two heads": Layout(
        {
            "teacher": normed("head.last_layer2", 3) | normed("head.last_layer", 1) | backbone(),
            "ibot_loss": {"center": values(50, 1, K), "center2": values(51, 1, 1, K)},
        },
        {("teacher", "head"): 1, ("teacher", "head.last_layer2"): 3},
        ("teacher", "head"),
        "ibot",
    ),
    "SwAV": Layout(
        OrderedDict(ddp(mlp("projection_head") | plain("prototypes", 1))),
        {(None, "prototypes"): 1},
        (None, "prototypes"),
        "swav",
    ),
    "SwAV, full training file": Layout(
        {"epoch": 1, "state_dict": ddp(mlp("projection_head") | plain("prototypes", 1))},
        {(None, "prototypes"): 1},
        (None, "prototypes"),
        "swav",
    ),
    "DeepCluster-v2: three heads, never pooled": Layout(
        ddp({k: v for i in range(3) for k, v in plain(f"prototypes.prototypes{i}", i).items()}),
        {(None, f"prototypes{i}"): i for i in range(3)},
        (None, "prototypes0"),
        "deepclusterv2",
    ),
    "EsViT: no backbone prefix, two heads": Layout(
        {
            "student": ddp(
                backbone("") | normed("head.last_layer", 2) | normed("head_dense.last_layer", 4)
            ),
            "teacher": backbone("")
            | normed("head_dense.last_layer", 3)
            | normed("head.last_layer", 1),
        },
        TEACHER_STUDENT | {("teacher", "head_dense"): 3, ("student", "head_dense"): 4},
        ("teacher", "head"),
        "esvit",
    ),
    "EsViT, view task only": Layout(
        {"teacher": {"layers.0.norm.weight": values(5, D)} | normed("head.last_layer", 1)},
        {("teacher", "head"): 1},
        ("teacher", "head"),
        "esvit",
    ),
    "MSN: a raw tensor": Layout(
        {"target_encoder": ddp(backbone("") | plain("fc.fc3", 9)), "prototypes": values(1, K, D)},
        {(None, "prototypes"): 1},
        (None, "prototypes"),
        "msn",
    ),
    "MSN, full training file": Layout(
        {
            "encoder": ddp(backbone("")),
            "opt": {"state": {}},
            "prototypes": torch.nn.Parameter(values(1, K, D)),
            "target_encoder": ddp(backbone("")),
            "temperature": 0.1,
        },
        {(None, "prototypes"): 1},
        (None, "prototypes"),
        "msn",
    ),
    "Mugs: only the group head has prototypes": Layout(
        {
            "student": ddp(normed("group_head.last_layer", 2) | mlp("instance_head.projector")),
            "teacher": normed("group_head.last_layer", 1) | mlp("local_group_head.projector"),
            "teacher_mem": {"instance_queue.queue": values(8, K, D)},
            "group-sup.": {"center": values(9, 1, K)},
        },
        {("teacher", "group_head"): 1, ("student", "group_head"): 2},
        ("teacher", "group_head"),
        "mugs",
    ),
    "CARP": Layout(
        {
            "student": ddp(dino(2)),
            "teacher": ddp(dino(1)),
            "args": argparse.Namespace(ncrops=8),
        },
        TEACHER_STUDENT,
        ("teacher", "head"),
        "carp",
    ),
    "CAPI student": Layout(
        backbone("backbone.encoder.")
        | backbone("backbone.decoder.")
        | normed("head.last_layer", 1),
        {(None, "head"): 1},
        (None, "head"),
        "capi",
    ),
    "CAPI teacher: online clustering with a bias": Layout(
        backbone("backbone.encoder.") | plain("head.layer", 1, bias=True),
        {(None, "head"): 1},
        (None, "head"),
        "capi",
        bias=True,
    ),
    "DINOv2": Layout(
        {
            "teacher": backbone()
            | normed("ibot_head.last_layer", 3, k=2 * K)
            | normed("dino_head.last_layer", 1)
        },
        {("teacher", "dino_head"): 1, ("teacher", "ibot_head"): 3},
        ("teacher", "dino_head"),
        "dinov2",
        sizes={"ibot_head": 2 * K},
    ),
    "DINOv2, whole model under one key": Layout(
        {
            "model": normed("student.dino_head.last_layer", 2)
            | normed("teacher.dino_head.last_layer", 1)
        },
        {("teacher", "dino_head"): 1, ("student", "dino_head"): 2},
        ("teacher", "dino_head"),
        "dinov2",
    ),
    "Web-SSL heads file": Layout(
        normed("dino_head.last_layer", 1)
        | mlp("dino_head.mlp")
        | normed("ibot_head.last_layer", 3),
        {(None, "dino_head"): 1, (None, "ibot_head"): 3},
        (None, "dino_head"),
        "dinov2",
    ),
    "DINOv3: plain last layers": Layout(
        {"teacher": plain("dino_head.last_layer", 1) | plain("ibot_head.last_layer", 3)},
        {("teacher", "dino_head"): 1, ("teacher", "ibot_head"): 3},
        ("teacher", "dino_head"),
        "dinov3",
    ),
    "Franca: nested heads of growing size": Layout(
        {"teacher": franca()},
        {("teacher", name): seed for seed, name in enumerate(FRANCA)},
        ("teacher", "dino_head.2"),
        "franca",
        sizes=FRANCA,
    ),
    "RAD-DINO: a head alone": Layout(
        normed("last_layer", 1) | mlp("mlp"), {(None, "last_layer"): 1}, (None, "last_layer"), None
    ),
    "VISSL SwAV": Layout(
        {
            "classy_state_dict": {
                "base_model": {
                    "model": {
                        "trunk": backbone("_feature_blocks."),
                        "heads": plain("0.prototypes0", 1) | mlp("0.projection_head"),
                    }
                }
            },
            "iteration": 5,
        },
        {(None, "prototypes0"): 1},
        (None, "prototypes0"),
        "vissl_swav",
    ),
    "VISSL DINO: the teacher is in the loss": Layout(
        {
            "loss": normed("momentum_teacher.heads.0.prototypes0", 1) | {"center": values(5, 1, K)},
            "classy_state_dict": {"base_model": {"model": {"heads": normed("0.prototypes0", 2)}}},
        },
        {("teacher", "prototypes0"): 1, ("student", "prototypes0"): 2},
        ("teacher", "prototypes0"),
        "vissl_dino",
    ),
    "lightly DINO": Layout(
        {
            "pytorch-lightning_version": "2.0.3",
            "state_dict": normed("projection_head.last_layer", 1)
            | normed("student_projection_head.last_layer", 2)
            | {"criterion.center": values(3, 1, 1, K)},
        },
        {("teacher", "projection_head"): 1, ("student", "student_projection_head"): 2},
        ("teacher", "projection_head"),
        "lightly_dino",
    ),
    "lightly iBOT: one head under three names": Layout(
        {"pytorch-lightning_version": "2.0.3", "state_dict": lightly_ibot()},
        {("teacher", "teacher_head"): 1, ("student", "student_head"): 2},
        ("teacher", "teacher_head"),
        "lightly_ibot",
    ),
    "lightly SwAV: a bias": Layout(
        {
            "pytorch-lightning_version": "2.0.3",
            "state_dict": plain("prototypes.heads.0", 1, bias=True) | mlp("projection_head.layers"),
        },
        {(None, "prototypes0"): 1},
        (None, "prototypes0"),
        "lightly_swav",
        bias=True,
    ),
    "lightly-train": Layout(
        {
            "pytorch-lightning_version": "2.5.0",
            "state_dict": normed("teacher_head.dino_head.last_layer", 1, new_style=True)
            | normed("teacher_head.ibot_head.last_layer", 3, new_style=True)
            | normed("student_head.dino_head.last_layer", 2, new_style=True),
        },
        {("teacher", "dino_head"): 1, ("teacher", "ibot_head"): 3, ("student", "dino_head"): 2},
        ("teacher", "dino_head"),
        "dinov2",
    ),
    "solo-learn DINO": Layout(
        {
            "pytorch-lightning_version": "1.9.0",
            "state_dict": normed("head.last_layer", 2) | normed("momentum_head.last_layer", 1),
        },
        {("teacher", "momentum_head"): 1, ("student", "head"): 2},
        ("teacher", "momentum_head"),
        "solo_dino",
    ),
    "solo-learn SwAV": Layout(
        {"state_dict": normed("prototypes", 1) | mlp("projector")},
        {(None, "prototypes"): 1},
        (None, "prototypes"),
        "solo_swav",
    ),
    "a compiled and sharded model": Layout(
        {"teacher": ddp(dino(1), "_orig_mod._fsdp_wrapped_module.module.")},
        {("teacher", "head"): 1},
        ("teacher", "head"),
        "dino",
    ),
    "dictionaries all the way down": Layout(
        {
            "teacher": {
                "head": {
                    "last_layer": {
                        key.rpartition(".")[2]: tensor for key, tensor in normed("x", 1).items()
                    }
                }
            }
        },
        {("teacher", "head"): 1},
        ("teacher", "head"),
        "dino",
    ),
    "a bare tensor": Layout(values(1, K, D), {(None, "prototypes"): 1}, (None, "prototypes"), None),
}
