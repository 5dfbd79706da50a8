"""Every layout that a method repository writes gives its heads.

The oracle is the seed: each layer has its own numbers, so that only the right tensor passes.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from collapse_audit.checkpoints.layouts import parse_key
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from collapse_audit.checkpoints import describe, find_heads, load_prototypes
from tests.checkpoint_layouts import (
    LAYOUTS,
    D,
    K,
    Layout,
    backbone,
    ddp,
    dino,
    lightly_ibot,
    normed,
    plain,
    values,
)


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
