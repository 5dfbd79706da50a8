"""Which network a head belongs to, which copies of it count, and what it is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from collapse_audit.checkpoints.locations import HeadLocation
from collapse_audit.checkpoints.roles import branch_of, is_patch_level
from collapse_audit.checkpoints.structure import discover_heads
from tests.checkpoint_layouts import D, K, normed, plain
from tests.small_checkpoints import checkpoint_of, heads_of


def found(*modules: str) -> tuple[HeadLocation, ...]:
    return discover_heads(checkpoint_of({f"{module}.weight": (K, D) for module in modules}))


@pytest.mark.parametrize(
    ("part", "branch"),
    [
        *((name, "teacher") for name in (
            "teacher", "_teacher", "teacher_head", "momentum", "momentum_head", "target_encoder",
            "t_model", "encoder_k", "averaged_model", "model_ema", "ema", "ema_model",
            "state_dict_ema", "head_teacher",
        )),
        *((name, "student") for name in (
            "student", "student_head", "s_model", "online", "online_network", "encoder_q",
            "base_encoder", "context_encoder", "current_model_state", "head_student",
        )),
        *((name, None) for name in ("model", "head", "schema", "cinema", "steam", "backbone")),
    ],
)  # fmt: skip
def test_the_names_that_people_give_their_networks(part: str, branch: str | None) -> None:
    assert branch_of(("state_dict", part, "head", "last_layer")) == branch


def test_the_outermost_name_counts() -> None:
    assert branch_of(("student", "teacher_head")) == "student"
    assert branch_of(("model", "teacher", "student_projection")) == "teacher"


def test_mmengine_keeps_the_average_where_others_keep_the_model() -> None:
    keys = ("state_dict/head.prototypes", "ema_state_dict/module.head.prototypes", "meta/x")
    heads = found(*keys)
    assert {head.weight_key.partition("/")[0]: head.branch for head in heads} == {
        "state_dict": "teacher",
        "ema_state_dict": "student",
    }


def test_an_unmarked_network_beside_a_marked_one_is_the_other() -> None:
    for marked, other in (("momentum_head", "student"), ("student_head", "teacher")):
        heads = found("head.last_layer", f"{marked}.last_layer")
        assert [head.branch for head in heads if head.name == "head"] == [other]
    assert [head.branch for head in found("head.last_layer")] == [None]


def test_a_running_average_beside_a_teacher_is_not_counted_again() -> None:
    heads = found("model/teacher.head.last_layer", "model/model_ema.head.last_layer")
    assert [head.weight_key for head in heads] == ["model/teacher.head.last_layer.weight"]
    alone = found("model/student.head.last_layer", "model/model_ema.head.last_layer")
    assert [head.branch for head in alone] == ["student", "teacher"]


def test_equal_names_in_one_branch_are_told_apart_by_their_modules(tmp_path: Path) -> None:
    state = normed("student.head.last_layer", 1) | normed("student_b.head.last_layer", 2)
    heads = heads_of({"model": state}, tmp_path)
    assert len({(head.branch, head.name) for head in heads}) == len(heads) == 2


def test_teacher_and_student_in_one_storage_get_a_note(tmp_path: Path) -> None:
    network = plain("head.last_layer", 1)
    heads = heads_of({"student": network, "teacher": network}, tmp_path)
    assert [head.branch for head in heads] == ["student", "teacher"]
    for head in heads:
        assert "one storage" in head.notes[0]
        assert "ln K" in head.notes[0]
    copied = {key: tensor.clone() for key, tensor in network.items()}
    assert [h.notes for h in heads_of({"student": network, "teacher": copied}, tmp_path)] == [
        (),
        (),
    ]


def test_what_peft_trained_comes_before_what_it_replaces() -> None:
    layer = "base_model.model.head.last_layer"
    heads = found(f"{layer}.original_module", f"{layer}.modules_to_save.default")
    (head,) = heads
    assert "modules_to_save" in head.weight_key
    (alone,) = found(f"{layer}.original_module")
    assert "original_module" in alone.weight_key


def test_a_low_rank_adapter_on_the_prototypes_gets_a_note() -> None:
    (head,) = found("head.last_layer.base_layer", "head.last_layer.lora_A.default")
    assert "LoRA" in head.notes[0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("head.last_layer2", True), ("head_dense", True), ("ibot_head", True), ("patch_head", True),
     ("head", False), ("dino_head", False), ("prototypes0", False)],
)  # fmt: skip
def test_heads_for_patches_are_known_by_their_names(name: str, expected: bool) -> None:
    assert is_patch_level(name) is expected
