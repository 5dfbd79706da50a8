"""Every layout that a method repository writes, built small and with values that can be told apart.

The oracle is the seed: each layer has its own numbers, so that only the right tensor passes.
"""

import argparse
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from collapse_audit.checkpoints import describe, find_heads, load_prototypes
from collapse_audit.checkpoints.layouts import parse_key

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
        "vissl",
    ),
    "VISSL DINO: the teacher is in the loss": Layout(
        {
            "loss": normed("momentum_teacher.heads.0.prototypes0", 1) | {"center": values(5, 1, K)},
            "classy_state_dict": {"base_model": {"model": {"heads": normed("0.prototypes0", 2)}}},
        },
        {("teacher", "prototypes0"): 1, ("student", "prototypes0"): 2},
        ("teacher", "prototypes0"),
        "vissl",
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
        "lightly",
    ),
    "lightly iBOT: one head under three names": Layout(
        {"pytorch-lightning_version": "2.0.3", "state_dict": lightly_ibot()},
        {("teacher", "teacher_head"): 1, ("student", "student_head"): 2},
        ("teacher", "teacher_head"),
        "lightly",
    ),
    "lightly SwAV: a bias": Layout(
        {
            "pytorch-lightning_version": "2.0.3",
            "state_dict": plain("prototypes.heads.0", 1, bias=True) | mlp("projection_head.layers"),
        },
        {(None, "prototypes0"): 1},
        (None, "prototypes0"),
        "lightly",
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
        "lightly",
    ),
    "solo-learn DINO": Layout(
        {
            "pytorch-lightning_version": "1.9.0",
            "state_dict": normed("head.last_layer", 2) | normed("momentum_head.last_layer", 1),
        },
        {("teacher", "momentum_head"): 1, ("student", "head"): 2},
        ("teacher", "momentum_head"),
        None,
    ),
    "solo-learn SwAV": Layout(
        {"state_dict": normed("prototypes", 1) | mlp("projector")},
        {(None, "prototypes"): 1},
        (None, "prototypes"),
        None,
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


def check(path: Path, layout: Layout) -> None:
    found = find_heads(path)
    assert sorted((str(h.branch), h.name) for h in found) == sorted(
        (str(branch), name) for branch, name in layout.heads
    )
    for head in found:
        seed = layout.heads[head.branch, head.name]
        k = layout.sizes.get(head.name, K)
        loaded = load_prototypes(path, branch=head.branch or "teacher", head=head.name)
        np.testing.assert_array_equal(loaded.rows, values(seed, k, D).numpy())
        if head.scale_key:
            scale = values(seed + 1000, k, 1).abs() + 0.5
            np.testing.assert_array_equal(loaded.norms, scale[:, 0].double().numpy())
        if layout.bias:
            assert loaded.bias is not None
            np.testing.assert_array_equal(loaded.bias, values(seed + 2000, k).double().numpy())
        else:
            assert loaded.bias is None
        assert loaded.tensor_keys == head.tensor_keys
        assert (loaded.branch, loaded.name) == (head.branch, head.name)
    description = describe(path)
    assert description.default is not None
    assert (description.default[1], description.default[0]) == layout.default
    assert description.family == layout.family


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.filterwarnings("ignore:.*took the student")
def test_every_layout_gives_its_heads(name: str, is_zip: bool, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save(LAYOUTS[name].tree, path, _use_new_zipfile_serialization=is_zip)
    check(path, LAYOUTS[name])


@pytest.mark.parametrize(
    "name",
    ["SwAV", "CAPI student", "CAPI teacher: online clustering with a bias",
     "Web-SSL heads file", "RAD-DINO: a head alone", "DeepCluster-v2: three heads, never pooled"],
)  # fmt: skip
def test_flat_layouts_may_be_safetensors(name: str, tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    save_file(dict(LAYOUTS[name].tree), path)
    check(path, LAYOUTS[name])


def test_shared_storage_is_one_head_with_aliases(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save({"state_dict": lightly_ibot()}, path)
    teacher = next(head for head in find_heads(path) if head.branch == "teacher")
    assert teacher.weight_key == "state_dict/teacher_head.last_layer.weight_v"
    assert teacher.aliases == (
        "state_dict/teacher_cls_head.last_layer.weight_v",
        "state_dict/teacher_patch_head.last_layer.weight_v",
    )


def test_equal_values_in_two_storages_are_two_heads(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    state = normed("head.last_layer", 1) | {
        key.replace("last_layer", "last_layer2"): tensor.clone()
        for key, tensor in normed("head.last_layer", 1).items()
    }
    torch.save({"teacher": state}, path)
    assert [head.name for head in find_heads(path)] == ["head", "head.last_layer2"]


def test_two_rows_of_one_storage_are_two_heads(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    pool = values(1, 2 * K, D)
    torch.save({"prototypes0.weight": pool[:K], "prototypes1.weight": pool[K:]}, path)
    assert [head.aliases for head in find_heads(path)] == [(), ()]
    np.testing.assert_array_equal(load_prototypes(path, head="prototypes1").rows, pool[K:].numpy())


def test_a_cached_weight_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save({"teacher": dino(1) | plain("head.last_layer", 5)}, path)
    (head,) = find_heads(path)
    assert head.weight_key.endswith("weight_v")


def test_equal_names_in_one_branch_are_told_apart_by_their_modules(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    state = normed("student.head.last_layer", 1) | normed("student_ema.head.last_layer", 2)
    torch.save({"model": state}, path)
    assert [head.name for head in find_heads(path)] == [
        "model.student.head.last_layer",
        "model.student_ema.head.last_layer",
    ]


@pytest.mark.parametrize(
    "state",
    [
        backbone(""),
        backbone("") | plain("head", 1, bias=True, k=1000),
        {"conv1.weight": values(1, D, 3, 7, 7)} | plain("fc", 1, bias=True, k=1000),
        plain("fc", 1, k=1000),
        {"state_dict": ddp(plain("linear", 1, bias=True))},
        {"not_last_layer.weight": values(1, K, D), "x.weight": values(1, K, D)},
        {"head.last_layer.weight": torch.ones(K, D, dtype=torch.int64)},
        {"head.last_layer.weight": values(1, K, D, 1)},
        {"epoch": 3, "note": "no tensors at all"},
    ],
)
def test_classifiers_and_other_layers_are_not_prototypes(
    state: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "backbone.pth"
    torch.save(state, path)
    assert find_heads(path) == ()


wrappers = st.lists(st.sampled_from(["module", "_orig_mod", "_fsdp_wrapped_module"]), max_size=3)


@given(outer=st.sampled_from([(), ("state_dict",), ("model",)]), before=wrappers, after=wrappers)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_wrappers_change_neither_name_nor_branch(
    outer: tuple[str, ...], before: list[str], after: list[str]
) -> None:
    key = ".".join([*before, "teacher", *after, "head.last_layer.weight_v"])
    parsed = parse_key((*outer, key))
    assert parsed is not None
    assert (parsed.name, parsed.branch, parsed.part) == ("head", "teacher", "direction")


@given(st.text(alphabet="ab._lth01", max_size=30))
def test_words_that_only_contain_a_layer_name_are_not_layers(noise: str) -> None:
    assert parse_key((f"{noise}xlast_layer.weight",)) is None
    assert parse_key((f"{noise}.last_layerx.weight",)) is None
    assert parse_key((f"{noise}.xprototypes",)) is None
