"""Files that the official repositories' own code wrote, with planted redundancy (truth.json)."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest

from collapse_audit.errors import (
    CheckpointError,
    CollapseAuditError,
    NoPrototypesError,
    PrototypeError,
    UnsafePickleError,
)
from collapse_audit.prototypes import Prototypes
from collapse_audit.sources import describe_source, load_heads, load_prototypes, resolve_source

GOOD = [
    "capi_student_ema.pth",
    "carp_checkpoint0000.pth",
    "dino_bf16.pth",
    "dino_head.safetensors",
    "dino_k16384_fp16.pth",
    "dino_legacy_container.pth",
    "dino_noncontiguous.pth",
    "dino_rn50_published.pth",
    "dino_total_collapse.pth",
    "dino_vit_full_norm.pth",
    "dino_vit_mlcd.pth",
    "dinov2_teacher_checkpoint.pth",
    "esvit_swin_vr.pth",
    "ibot_vit_shared.pth",
    "lightly_dino.ckpt",
    "msn_published.pth.tar",
    "swav_flat_legacy.pth.tar",
    "unknown_global.pth",
]
BAD = {
    "bad_k1.pth": (PrototypeError, "K = 1"),
    "bad_nan.pth": (PrototypeError, r"2 of 256 prototypes hold NaN.*first at index 17"),
    "bad_zero_row.pth": (PrototypeError, r"2 of 256 prototypes are all zero.*first at index 11"),
    "bomb_deflated_pickle.pth": (CheckpointError, r"declares 60\.0 MB; it was not read"),
    "broken_html.pth": (CheckpointError, "web page"),
    "broken_truncated_legacy.pth": (
        CheckpointError,
        "truncated: a torch file of 61,418 bytes that should have 0.1 MB",
    ),
    "broken_truncated_zip.pth": (CheckpointError, "truncated .* 83,379 bytes"),
    "broken_zero_byte.pth": (CheckpointError, "empty"),
    "evil_os_system.pth": (UnsafePickleError, r"posix\.system.*nothing was executed"),
    "lying_header_offsets.safetensors": (CheckpointError, r"declares 4\.2 MB.*has 4,096 bytes"),
    "timm_backbone_only.pth": (NoPrototypesError, "no prototypes in this file.*patch_embed"),
}


@pytest.fixture(scope="module")
def truth(shared_checkpoints: Path) -> dict[str, dict]:
    return json.loads((shared_checkpoints / "truth.json").read_text())


def count_by_definition(prototypes: Prototypes, epsilon: float = 0.025) -> list[int]:
    """Redundancy factors of the greedy leader cover, in float64 and one row at a time."""
    rows = prototypes.rows.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    leaders = np.empty_like(rows)
    sizes: list[int] = []
    for row in rows:
        close = np.flatnonzero(1 - leaders[: len(sizes)] @ row < epsilon)
        if close.size:
            sizes[close[0]] += 1
        else:
            leaders[len(sizes)] = row
            sizes.append(1)
    return sorted(sizes, reverse=True)


def test_no_file_was_forgotten(truth: dict[str, dict]) -> None:
    assert sorted(truth) == sorted([*GOOD, *BAD])


@pytest.mark.parametrize("name", GOOD)
def test_heads_are_where_the_truth_says(
    name: str, shared_checkpoints: Path, truth: dict[str, dict]
) -> None:
    expected = truth[name]["heads"]
    found = {head.weight_key: head for head in resolve_source(shared_checkpoints / name).heads}
    assert sorted(found) == sorted(head["tensor_key"] for head in expected.values())
    for label, true in expected.items():
        head = found[true["tensor_key"]]
        assert head.name == label.rpartition("/")[2]
        assert head.branch == true.get("branch")
        assert (head.k, head.d) == (true["K"], true["D"])
        assert head.scale_key == true["scale_key"]
        assert head.parametrisation == ("weight_norm" if true["scale_key"] else "plain")
        assert head.aliases == tuple(true.get("aliases", ()))
        assert head.dtype == true.get("dtype", "float32")


@pytest.mark.parametrize("name", GOOD)
def test_the_right_values_are_read(
    name: str, shared_checkpoints: Path, truth: dict[str, dict]
) -> None:
    for label, true in truth[name]["heads"].items():
        prototypes = load_prototypes(
            shared_checkpoints / name,
            branch=true.get("branch", "teacher"),
            head=label.rpartition("/")[2],
        )
        factors = count_by_definition(prototypes)
        assert len(factors) == true["M_true"]
        if "redundancy_factors" in true:
            assert factors[:10] == true["redundancy_factors"]
        if "n_singletons" in true:
            assert factors.count(1) == true["n_singletons"]
        assert (prototypes.k, prototypes.d) == (true["K"], true["D"])
        assert prototypes.dtype == true.get("dtype", "float32")
        if "effective_row_norm" in true:
            norms = np.sort(prototypes.norms)
            spread = [norms[0], norms[(len(norms) - 1) // 2], norms[-1]]  # torch's lower median
            true_spread = [true["effective_row_norm"][name] for name in ("min", "median", "max")]
            np.testing.assert_allclose(spread, true_spread, rtol=1e-6)


@pytest.mark.parametrize("name", GOOD)
def test_descriptions_agree_with_the_truth(
    name: str, shared_checkpoints: Path, truth: dict[str, dict]
) -> None:
    true = truth[name]
    description = describe_source(resolve_source(shared_checkpoints / name))
    assert description["container"] == true["container"]
    assert description["size"] == true["size"]
    (default,) = (head for head in description["heads"] if head["default"])
    assert true["default_head"] in (f"{default['branch']}/{default['name']}", default["name"])
    assert bool(description["centre_keys"]) == true["has_center"]
    if "center_keys" in true:
        assert description["centre_keys"] == true["center_keys"]
    # methods of lightly have a recipe each, and are told apart since these files were made
    families = {"safetensors_head": None, "lightly": "lightly_dino"}
    assert description["source"]["family"] == families.get(true["family"], true["family"])


def test_an_object_of_an_unknown_type_is_named_and_does_not_cost_the_audit(
    shared_checkpoints: Path,
) -> None:
    path = shared_checkpoints / "unknown_global.pth"
    for notes in (load_prototypes(path).notes, describe_source(resolve_source(path))["notes"]):
        assert "some_private_lib.config.CfgNode" in notes[0]


def test_a_shared_ibot_head_is_loaded_once(shared_checkpoints: Path) -> None:
    heads = load_heads(shared_checkpoints / "ibot_vit_shared.pth", branch="student")
    assert [head.name for head in heads] == ["head"]


@pytest.mark.parametrize("name", BAD)
def test_bad_files_give_one_clear_line(name: str, shared_checkpoints: Path) -> None:
    kind, message = BAD[name]
    marker = Path(tempfile.gettempdir()) / "ck_pickle_ran_code"
    with pytest.raises(kind, match=message) as caught:
        load_prototypes(shared_checkpoints / name)
    assert isinstance(caught.value, CollapseAuditError)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)
    assert not marker.exists()
