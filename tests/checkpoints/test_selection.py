"""Which file, branch and head the user gets, and what they are told."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from collapse_audit.checkpoints.sources import resolve_source

from collapse_audit.checkpoints import (
    describe,
    load_heads,
    load_prototypes,
)
from collapse_audit.cli.commands.info import info_command
from collapse_audit.errors import (
    CheckpointError,
    CollapseAuditWarning,
    NoPrototypesError,
    SourceError,
)


def layer(module: str, seed: int, k: int = 6) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {f"{module}.last_layer.weight": torch.randn(k, 4, generator=generator)}


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


def test_a_head_may_be_given_by_its_key(two_heads: Path) -> None:
    loaded = load_prototypes(two_heads, head="student/x.last_layer.weight")
    assert (loaded.name, loaded.branch) == ("x", "student")


def test_any_matrix_is_a_head_if_the_user_says_so(tmp_path: Path) -> None:
    path = tmp_path / "projector.pth"
    torch.save({"projector.0.weight": torch.ones(4, 4), "projector.6.weight": torch.eye(7)}, path)
    with pytest.raises(NoPrototypesError, match="name the key of the last layer as the head"):
        load_prototypes(path)
    loaded = load_prototypes(path, head="projector.6.weight")
    assert (loaded.k, loaded.tensor_keys) == (7, ("projector.6.weight",))


def test_a_wrong_head_lists_the_choices(two_heads: Path) -> None:
    message = r"no head 'head'\. Heads: ibot_head \(teacher\), dino_head \(teacher\), dino_head \("
    with pytest.raises(CheckpointError, match=message):
        load_prototypes(two_heads, head="head")


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


def test_a_single_network_is_taken_without_a_word(one_network: Path) -> None:
    with warnings.catch_warnings(action="error"):
        assert load_prototypes(one_network).branch is None


def test_a_backbone_says_which_keys_it_has_and_what_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "backbone.pth"
    torch.save({f"blocks.{i}.weight": torch.ones(2, 2) for i in range(9)}, path)
    with pytest.raises(
        NoPrototypesError,
        match=r"keys are blocks\.0\.weight, .* and 3 more\. Backbone-only.*full training checkp",
    ):
        load_heads(path)


def test_a_path_is_found_as_typed(
    two_heads: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_source("dinov2.pth").spec == "dinov2.pth"
    assert resolve_source(Path("./dinov2.pth")).path.samefile(two_heads)
    assert load_prototypes("dinov2.pth", head="dino_head").source == "dinov2.pth"


def test_an_absolute_path_is_not_put_into_reports(two_heads: Path) -> None:
    resolved = resolve_source(two_heads)
    assert (resolved.spec, resolved.id, resolved.family) == ("dinov2.pth", None, None)


def test_a_home_folder_is_expanded(two_heads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(two_heads.parent))
    assert resolve_source("~/dinov2.pth").path == two_heads


def test_the_checkpoint_folder_is_searched_too(two_heads: Path) -> None:
    resolved = resolve_source("dinov2.pth", checkpoint_dir=two_heads.parent)
    assert resolved.path == two_heads
    assert resolved.spec == "dinov2.pth"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("dinov3.pth", r"dinov3\.pth: no such file\. Did you mean .*dinov2\.pth\?"),
        ("missing", r"missing: no such file\. Check the path\."),
        ("no/such/folder/x.pth", "no such file"),
        (".", "is a directory.*Give one file inside it"),
        ("/dev/null", "not a regular file"),
        ("x" * 5000, "cannot be opened"),
        ("nul\0byte", r"nul\\x00byte: "),
    ],
)
def test_a_source_that_is_no_file_says_what_it_is(
    source: str, message: str, two_heads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(two_heads.parent)
    with pytest.raises(SourceError, match=message) as caught:
        load_prototypes(source)
    assert len(str(caught.value)) < 500


def test_a_distributed_checkpoint_says_how_to_convert_it(tmp_path: Path) -> None:
    (tmp_path / ".metadata").touch()
    with pytest.raises(SourceError, match="dcp_to_torch"):
        describe(tmp_path)


def test_info_prints_heads_keys_and_container(two_heads: Path) -> None:
    done = CliRunner().invoke(info_command, [str(two_heads)])
    assert done.exit_code == 0
    lines = [line.split() for line in done.stdout.splitlines()]
    assert done.stdout.startswith("dinov2.pth: zip, ")
    assert ["teacher/ibot_head", "1", "36"] in lines
    assert ["ibot_head", "teacher", "9", "4", "float32"] in lines
    assert ["dino_head*", "teacher", "6", "4", "float32"] in lines
    assert "dino_head (student): student/dino_head.last_layer.weight" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_info_as_json_holds_the_same(two_heads: Path) -> None:
    done = CliRunner().invoke(info_command, [str(two_heads), "--json"])
    content: dict[str, Any] = json.loads(done.stdout)
    assert content["schema"] == "collapse-audit/info"
    assert content["container"] == "zip"
    assert content["source"] == {"spec": "dinov2.pth", "family": "dinov3"}
    assert [head["name"] for head in content["heads"] if head["default"]] == ["dino_head"]
    assert content["top_level"] == [
        {"key": "teacher", "tensors": 2},
        {"key": "student", "tensors": 2},
    ]


def test_info_describes_a_backbone_without_an_error(tmp_path: Path) -> None:
    path = tmp_path / "backbone.npz"
    np.savez(path, labels=np.arange(3))
    done = CliRunner().invoke(info_command, [str(path)])
    assert (done.exit_code, "no prototypes in this file" in done.stdout) == (0, True)


def test_info_shortens_the_tree_of_a_large_flat_file(tmp_path: Path) -> None:
    path = tmp_path / "flat.pth"
    state: dict[str, Any] = {f"layer{i}.weight": torch.ones(2) for i in range(40)}
    torch.save({**state, "epoch": 3}, path)
    done = CliRunner().invoke(info_command, [str(path)])
    assert "… and 16 more" in done.stdout
    assert "without tensors: epoch" in done.stdout


def test_a_student_centre_is_listed(tmp_path: Path) -> None:
    path = tmp_path / "ibot.pth"
    loss = {"center": torch.ones(1, 6), "center2": torch.ones(1, 6), "centered": torch.ones(1)}
    torch.save({"teacher": layer("head", 1), "ibot_loss": loss}, path)
    description = describe(path)
    assert description.centre_keys == ("ibot_loss/center", "ibot_loss/center2")
    assert description.family == "ibot"
    assert CliRunner().invoke(info_command, [str(path)]).stdout.count("center2") >= 1
