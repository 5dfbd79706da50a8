"""Which layers are prototypes, by their names and by what stands before them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collapse_audit.checkpoints.locations import HeadLocation
from collapse_audit.checkpoints.structure import discover_heads
from collapse_audit.errors import CheckpointError
from collapse_audit.sources import load_prototypes
from tests.checkpoint_layouts import D, K, backbone, ddp, dino, lightly_ibot, normed, plain, values
from tests.small_checkpoints import checkpoint_of, heads_of

Shapes = dict[str, tuple[int, ...]]


def found(shapes: Shapes, **options: Any) -> tuple[HeadLocation, ...]:
    return discover_heads(checkpoint_of(shapes, **options))


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("head.last_layer.weight", "head"),
        ("head.last_layer2.weight", "head.last_layer2"),
        ("head.aux_last_layer.weight", "head.aux_last_layer"),
        ("last_layer.weight", "last_layer"),
        ("prototype", "prototype"),
        ("prototypes", "prototypes"),
        ("_prototypes", "_prototypes"),
        ("swav_head._prototypes", "swav_head"),
        ("prototypes.weight", "prototypes"),
        ("prototypes.0.weight", "prototypes0"),
        ("prototypes.heads.2.weight", "prototypes2"),
        ("prototypes.layers.weight", "prototypes"),
        ("prototypes.prototypes1.weight", "prototypes1"),
        ("head.prototypes1.weight", "prototypes1"),
        ("smog.group_features", "group_features"),
        ("protos.weight", "protos"),
        ("teacher_prototypes", "teacher_prototypes"),
        ("head.layer.weight", "head"),
        ("dino_head.last_layers.1.weight", "dino_head.1"),
        ("head.heads.3.last_layer.weight", "head.3"),
        ("classy_state_dict/base_model/model/heads/0.prototypes0.weight", "prototypes0"),
    ],
)
def test_layers_that_are_named_as_prototypes_are(key: str, name: str) -> None:
    (head,) = found({key: (K, D), "backbone.blocks.0.weight": (D, D)})
    assert (head.name, head.k, head.d, head.weight_key) == (name, K, D, key)


@pytest.mark.parametrize(
    "key",
    ["predictor.weight", "queue", "memory_bank.bank", "prediction_head.layers.3.weight",
     "head.weight", "fc.weight", "classifier.weight", "head.last_layers.weight",
     "optimizer/state/last_layer.weight", "not_last_layer.weight", "last_layer.running_mean",
     "xprototypes.weight", "prototypes_ptr", "layer.weight", "blocks.0.layer.weight"],
)  # fmt: skip
def test_layers_of_other_names_are_not(key: str) -> None:
    assert found({key: (K, D), "backbone.blocks.0.weight": (D, D)}) == ()


@given(st.text(alphabet="ab._lth01", max_size=30))
def test_words_that_only_contain_a_layer_name_are_not_layers(noise: str) -> None:
    for key in (
        f"{noise}xlast_layer.weight",
        f"{noise}.last_layerx.weight",
        f"{noise}.xprototypes",
    ):
        assert found({key: (K, D), "other": (3, 3)}) == ()


wrappers = st.lists(st.sampled_from(["module", "_orig_mod", "_fsdp_wrapped_module"]), max_size=3)


@given(
    outer=st.sampled_from(["", "state_dict/", "model/"]),
    parts=st.tuples(wrappers, wrappers, wrappers, wrappers),
)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_wrappers_change_neither_name_nor_branch(
    outer: str, parts: tuple[list[str], list[str], list[str], list[str]]
) -> None:
    before, between, inside, last = parts
    module = [*before, "teacher", *between, "head", *inside, "last_layer", *last]
    stem = outer + ".".join(module)
    (head,) = found({f"{stem}.weight_g": (K, 1), f"{stem}.weight_v": (K, D)})
    assert (head.name, head.branch, head.scale_key) == ("head", "teacher", f"{stem}.weight_g")


# --- structure -----------------------------------------------------------------------------------

CHAIN: Shapes = {
    "projector.0.weight": (32, 16), "projector.0.bias": (32,),
    "projector.2.weight": (32, 32), "projector.2.bias": (32,),
    "projector.4.weight": (8, 32), "projector.4.bias": (8,),
}  # fmt: skip


def test_what_ends_a_projection_head_as_only_prototypes_do_is_found() -> None:
    (head,) = found(CHAIN | {"projector.6.weight": (60, 8)})
    assert (head.weight_key, head.k, head.d) == ("projector.6.weight", 60, 8)


@pytest.mark.parametrize(
    "last",
    [
        {"projector.6.weight": (60, 8), "projector.6.bias": (60,)},  # a classifier
        {"projector.6.weight": (8, 8)},
        {"projector.6.weight": (4, 8)},
        {"projector.6.weight": (60, 40)},  # no bottleneck before it
        {},
    ],
)
def test_what_only_ends_a_chain_is_not(last: Shapes) -> None:
    assert found(CHAIN | last) == ()
    assert (
        found({key.replace("projector", "predictor"): s for key, s in CHAIN.items()} | last) == ()
    )


def test_a_weight_normed_end_of_a_head_is_found_under_any_name() -> None:
    shapes: Shapes = {"my_head.6.weight_v": (60, 8), "my_head.6.weight_g": (60, 1)}
    (head,) = found(CHAIN | shapes)
    assert head.parametrisation == "weight_norm"
    assert found(CHAIN | {"my_head.6.weight_v": (60, 8), "my_head.6.weight_g": (1, 8)}) == ()


def test_a_stack_is_a_head_for_each_matrix_of_it(tmp_path: Path) -> None:
    stack = values(1, 4, K, D)
    heads = heads_of({"prototypes": stack, "other": values(2, 3)}, tmp_path)
    assert [(h.name, h.index, h.k, h.d) for h in heads] == [
        (f"prototypes.{i}", i, K, D) for i in range(4)
    ]
    for i in range(4):
        loaded = load_prototypes(tmp_path / "checkpoint.pth", head=f"prototypes.{i}")
        np.testing.assert_array_equal(loaded.rows, stack[i].numpy())


def test_a_convolution_of_one_pixel_is_a_linear_layer(tmp_path: Path) -> None:
    weight = values(1, K, D, 1, 1)
    (head,) = heads_of({"prototypes.weight": weight}, tmp_path)
    assert (head.k, head.d) == (K, D)
    loaded = load_prototypes(tmp_path / "checkpoint.pth")
    np.testing.assert_array_equal(loaded.rows, weight[:, :, 0, 0].numpy())


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
        {"head.last_layer.weight": values(1, 0, D)},
        {"epoch": 3, "note": "no tensors at all"},
    ],
)
def test_classifiers_and_other_layers_are_not_prototypes(
    state: dict[str, Any], tmp_path: Path
) -> None:
    assert heads_of(state, tmp_path) == ()


def test_half_a_weight_norm_is_an_error(tmp_path: Path) -> None:
    state = {"teacher": {"head.last_layer.weight_v": values(1, K, D)}}
    with pytest.raises(CheckpointError, match=r"without its scale.*folder or its index"):
        heads_of(state, tmp_path)


# --- storages ------------------------------------------------------------------------------------


def test_shared_storage_is_one_head_with_aliases(tmp_path: Path) -> None:
    heads = heads_of({"state_dict": lightly_ibot()}, tmp_path)
    teacher = next(head for head in heads if head.branch == "teacher")
    assert teacher.weight_key == "state_dict/teacher_head.last_layer.weight_v"
    assert teacher.aliases == (
        "state_dict/teacher_cls_head.last_layer.weight_v",
        "state_dict/teacher_patch_head.last_layer.weight_v",
    )


def test_equal_values_in_two_storages_are_two_heads(tmp_path: Path) -> None:
    state = normed("head.last_layer", 1) | {
        key.replace("last_layer", "last_layer2"): tensor.clone()
        for key, tensor in normed("head.last_layer", 1).items()
    }
    heads = heads_of({"teacher": state}, tmp_path)
    assert [head.name for head in heads] == ["head", "head.last_layer2"]


def test_two_rows_of_one_storage_are_two_heads(tmp_path: Path) -> None:
    pool = values(1, 2 * K, D)
    state = {"prototypes0.weight": pool[:K], "prototypes1.weight": pool[K:]}
    assert [head.aliases for head in heads_of(state, tmp_path)] == [(), ()]
    loaded = load_prototypes(tmp_path / "checkpoint.pth", head="prototypes1")
    np.testing.assert_array_equal(loaded.rows, pool[K:].numpy())


def test_a_cached_weight_is_not_used(tmp_path: Path) -> None:
    (head,) = heads_of({"teacher": dino(1) | plain("head.last_layer", 5)}, tmp_path)
    assert head.weight_key.endswith("weight_v")


# --- which way it lies ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shapes", "transposed", "note"),
    [
        ({"prototypes.weight": (60, 8)}, False, ""),
        ({"prototypes.weight": (8, 8)}, False, ""),
        ({"prototypes.kernel": (8, 60)}, True, "a kernel"),
        ({"prototypes.kernel": (60, 8)}, True, "a kernel"),
        ({"prototypes.weight": (8, 60), "prototypes.bias": (60,)}, True, "its bias has 60 values"),
        ({"prototypes.weight": (8, 60), "prototypes.bias": (8,)}, False, ""),
        ({"prototypes.weight": (8, 60)}, False, "fewer prototypes than dimensions"),
        ({"last_layer.weight_v": (8, 60), "last_layer.weight_g": (8, 1)}, False, ""),
        (CHAIN | {"prototypes.weight": (8, 60)}, True, "the layer before it gives 8 values"),
        (CHAIN | {"prototypes.weight": (60, 8)}, False, ""),
        (CHAIN | {"prototypes.weight": (5, 8)}, False, ""),
        (
            {"head.0.weight": (16, 32), "head.2.weight": (32, 8), "prototypes": (8, 60)},
            True,
            "the layer before it gives 8 values",
        ),
        ({"head.0.weight": (8, 32), "prototypes": (8, 60)}, True, "gives 8 values"),
        ({"head.0.weight": (32, 8), "prototypes": (8, 60)}, True, "gives 8 values"),
        ({"head.0.weight": (48, 32), "prototypes": (20, 48)}, False, ""),
    ],
)
def test_a_matrix_is_turned_only_if_something_says_so(
    shapes: Shapes, transposed: bool, note: str
) -> None:
    (head,) = found(shapes)
    assert head.transposed == transposed
    rows, columns = shapes[head.weight_key]
    assert (head.k, head.d) == ((columns, rows) if transposed else (rows, columns))
    assert note in " ".join(head.notes)
    assert bool(head.notes) == bool(note)


# --- files that are a matrix ---------------------------------------------------------------------


def test_a_file_that_is_one_matrix_is_taken_at_its_word() -> None:
    assert [head.name for head in found({"codebook": (K, D)})] == ["codebook"]
    assert found({"codebook": (K, D), "labels": (K,)}) == ()
    assert found({"fc.weight": (K, D)}) == ()
    assert found({"codebook": (K,)}) == ()


def test_the_matrices_of_an_npz_are_heads_to_choose_from() -> None:
    shapes: Shapes = {"features": (9, D), "weight": (K, D), "labels": (9,)}
    assert [head.name for head in found(shapes, container="npz")] == ["features", "weight"]
    named = found(shapes | {"prototypes": (K, D)}, container="npz")
    assert [head.name for head in named] == ["prototypes"]
