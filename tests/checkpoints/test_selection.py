"""Which branch and head the user gets, and what they are told."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from collapse_audit.checkpoints.selection import select_heads
from collapse_audit.checkpoints.structure import discover_heads
from collapse_audit.errors import CheckpointError, CollapseAuditWarning
from collapse_audit.sources import load_heads, load_prototypes
from tests.small_checkpoints import WEIGHT, checkpoint_of, layer


@pytest.fixture
def two_heads(tmp_path: Path) -> Path:
    """A teacher and a student with two heads each, the patch head first and larger."""
    path = tmp_path / "dinov2.pth"
    teacher = layer("ibot_head", 1, k=9) | layer("dino_head", 2)
    torch.save({"teacher": teacher, "student": layer("dino_head", 3) | layer("x", 4)}, path)
    return path


@pytest.fixture
def student_only(tmp_path: Path) -> Path:
    path = tmp_path / "student.pth"
    torch.save({"student": layer("head", 1)}, path)
    return path


@pytest.fixture
def one_network(tmp_path: Path) -> Path:
    path = tmp_path / "swav.pth"
    torch.save({"module.prototypes.weight": torch.eye(5)}, path)
    return path


# --- branches ------------------------------------------------------------------------------------


def test_the_default_is_the_image_head_of_the_teacher_and_the_others_are_named(
    two_heads: Path,
) -> None:
    with pytest.warns(CollapseAuditWarning, match=r"took head 'dino_head'.*also has ibot_head"):
        loaded = load_prototypes(two_heads)
    assert (loaded.branch, loaded.name) == ("teacher", "dino_head")


def test_all_heads_of_a_branch_come_separately_and_without_a_warning(two_heads: Path) -> None:
    assert [p.name for p in load_heads(two_heads)] == ["ibot_head", "dino_head"]
    assert [p.k for p in load_heads(two_heads)] == [9, 6]
    assert [p.name for p in load_heads(two_heads, head="ibot_head")] == ["ibot_head"]
    assert {p.branch for p in load_heads(two_heads, branch="student")} == {"student"}


def test_branch_and_head_choose(two_heads: Path) -> None:
    loaded = load_prototypes(two_heads, branch="student", head="dino_head")
    expected = layer("dino_head", 3)["dino_head.last_layer.weight"]
    np.testing.assert_array_equal(loaded.rows, expected.numpy())


def test_a_wrong_branch_lists_the_choices(tmp_path: Path) -> None:
    path = tmp_path / "teacher.pth"
    torch.save({"teacher": layer("head", 1)}, path)
    with pytest.raises(CheckpointError, match=r"no branch 'student' in this file\. Branches: teac"):
        load_prototypes(path, branch="student")


def test_a_branch_of_a_single_network_is_a_mistake(one_network: Path) -> None:
    with pytest.raises(CheckpointError, match="single network: leave the branch out"):
        load_prototypes(one_network, branch="student")


def test_a_missing_teacher_falls_back_to_the_student_and_says_so(student_only: Path) -> None:
    with pytest.warns(CollapseAuditWarning, match="no teacher in this file; took the student"):
        loaded = load_prototypes(student_only)
    assert loaded.branch == "student"
    assert loaded.notes == ("no teacher in this file; took the student",)


def test_a_student_that_was_asked_for_needs_no_word(student_only: Path) -> None:
    with warnings.catch_warnings(action="error"):
        assert load_prototypes(student_only, branch="student").notes == ()


def test_a_single_network_is_taken_without_a_word(one_network: Path) -> None:
    with warnings.catch_warnings(action="error"):
        assert load_prototypes(one_network).branch is None


# --- a head by its name or key -------------------------------------------------------------------

SHAPES: dict[str, tuple[int, ...]] = {
    "teacher/head.last_layer.weight_g": (6, 1),
    "teacher/head.last_layer.weight_v": (6, 4),
    "teacher/head.last_layer.bias": (6,),
    "student/head.last_layer.weight_g": (6, 1),
    "student/head.last_layer.weight_v": (6, 4),
    "teacher/backbone.proj.weight": (8, 3, 2, 2),
    "teacher/backbone.fc1.weight": (9, 5),
    "teacher/backbone.point.weight": (9, 5, 1, 1),
    "teacher/empty": (0, 5),
    "teacher/masses": (3, 4, 5),
}


def chosen(head: str, branch: Any = "teacher", dtype: str = "float32") -> Any:
    checkpoint = checkpoint_of(SHAPES, dtype=dtype)
    heads = discover_heads(checkpoint)
    return select_heads(checkpoint, heads, branch=branch, head=head, spec="x.pth")


@pytest.mark.parametrize(
    ("head", "branch", "keys"),
    [
        ("head", "teacher", "teacher/head.last_layer.weight_v"),
        ("head", "student", "student/head.last_layer.weight_v"),
        ("student/head.last_layer.weight_v", "teacher", "student/head.last_layer.weight_v"),
        ("student/head.last_layer.weight_g", "teacher", "student/head.last_layer.weight_v"),
        ("backbone.fc1.weight", "teacher", "teacher/backbone.fc1.weight"),
        ("fc1.weight", "teacher", "teacher/backbone.fc1.weight"),
        ("c1.weight", "teacher", "teacher/backbone.fc1.weight"),
        ("point.weight", "teacher", "teacher/backbone.point.weight"),
    ],
)
def test_a_name_a_key_or_a_unique_end_of_a_key_is_enough(head: str, branch: Any, keys: str) -> None:
    (found,) = chosen(head, branch)
    assert found.weight_key == keys
    assert (found.k, found.d) == SHAPES[keys][:2]


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("last_layer.weight_v", r"2 tensors end in 'last_layer\.weight_v'\. Give more of the key: "
         r"teacher/head\.last_layer\.weight_v, student/head\.last_layer\.weight_v\."),
        ("weight", r"3 tensors end in 'weight'\. .*proj\.weight, .*fc1\.weight, .*point\.weight\."),
        ("", "10 tensors end in ''"),
        ("heat", r"no head and no tensor is called 'heat'\. Did you mean head\? Heads: head "
         r"\(teacher\), head \(student\)\."),
        ("backbone.fc2.weight", r"called 'backbone\.fc2\.weight'\. Did you mean .*backbone\.fc1"),
        ("zzz", r"no head and no tensor is called 'zzz'\. Heads: head \(teacher\), head \("),
        ("backbone.proj.weight", r"'teacher/backbone\.proj\.weight' is not a matrix \(2-D\) but "
         r"4-D, of shape \[8, 3, 2, 2\]\..*K x D\. Did you mean .*point\.weight|fc1"),
        ("masses", r"'teacher/masses' is not a matrix \(2-D\) but 3-D, of shape \[3, 4, 5\]"),
        ("last_layer.bias", r"bias' is not a matrix \(2-D\) but 1-D, of shape \[6\]\..*Did you "),
        ("empty", r"'teacher/empty' is empty, of shape \[0, 5\]"),
    ],
)  # fmt: skip
def test_a_head_that_is_none_says_why_with_its_shape_and_near_names(
    head: str, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        chosen(head)
    assert "\n" not in str(caught.value)


def test_a_head_of_the_other_branch_is_said_to_be_there() -> None:
    names = ("teacher.head.last_layer", "student.head.last_layer", "student.aux_head.last_layer")
    checkpoint = checkpoint_of({f"{name}.weight": (9, 4) for name in names})
    heads = discover_heads(checkpoint)
    assert [(head.name, head.branch) for head in heads][-1] == ("aux_head", "student")
    with pytest.raises(CheckpointError, match="a head of the student: choose `branch=student`"):
        select_heads(checkpoint, heads, branch="teacher", head="aux_head", spec="x")


def test_whole_numbers_are_not_prototypes() -> None:
    with pytest.raises(
        CheckpointError, match=r"is not floating-point but int64, of shape \[9, 5\]"
    ):
        chosen("backbone.fc1.weight", dtype="int64")


def test_a_wrong_head_without_any_head_says_how_to_list_the_keys() -> None:
    checkpoint = checkpoint_of({"a.weight": (3, 3), "b.weight": (3, 3)})
    with pytest.raises(CheckpointError, match=r"`collapse-audit info --all` lists its keys"):
        select_heads(checkpoint, (), branch="teacher", head="zzz", spec="x")


@given(key=st.sampled_from(sorted(SHAPES)), cut=st.integers(1, 40))
def test_every_end_of_a_key_is_one_head_or_an_error_of_one_line(key: str, cut: int) -> None:
    end = key[-cut:]
    try:
        (found,) = chosen(end)
    except CheckpointError as error:
        assert error.hint  # noqa: PT017
        return
    assert end == found.name or any(k.endswith(end) for k in found.tensor_keys)


def test_a_key_in_a_file_is_a_head(two_heads: Path) -> None:
    loaded = load_prototypes(two_heads, head="student/x.last_layer.weight")
    assert (loaded.name, loaded.branch) == ("x", "student")
    assert load_prototypes(two_heads, head="x.last_layer.weight").name == "x"


def test_any_matrix_is_a_head_if_the_user_says_so(tmp_path: Path) -> None:
    path = tmp_path / "projector.pth"
    torch.save({"projector.0.weight": torch.ones(4, 4), "projector.6.weight": torch.eye(7)}, path)
    for name in ("projector.6.weight", "6.weight"):
        loaded = load_prototypes(path, head=name)
        assert (loaded.k, loaded.tensor_keys) == (7, ("projector.6.weight",))


def test_a_stack_by_its_key_is_all_its_heads(tmp_path: Path) -> None:
    path = tmp_path / "stack.pth"
    torch.save({"model/prototypes": torch.randn(3, 5, 4)}, path)
    assert [p.name for p in load_heads(path, head="model/prototypes")] == [
        f"prototypes.{i}" for i in range(3)
    ]
    with pytest.warns(CollapseAuditWarning, match="also has prototypes.1, prototypes.2"):
        load_prototypes(path, head="model/prototypes")


# --- numpy archives ------------------------------------------------------------------------------


@pytest.mark.parametrize("load", [load_prototypes, load_heads])
def test_several_numpy_matrices_need_a_choice(load: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    np.savez(path, features=np.ones((3, 4)), weight=WEIGHT.numpy())
    with pytest.raises(CheckpointError, match=r"2 matrices.*Choose a head: features, weight"):
        load(path)
    np.testing.assert_array_equal(load_prototypes(path, head="weight").rows, WEIGHT.numpy())


def test_a_matrix_called_prototypes_needs_no_choice(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    np.savez(path, features=np.ones((3, 4)), prototypes=WEIGHT.numpy())
    assert load_prototypes(path).name == "prototypes"
