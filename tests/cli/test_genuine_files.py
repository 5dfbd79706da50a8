"""The command line on checkpoints in the original formats, against what was planted in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from collapse_audit.cli import main
from collapse_audit.report.schema import report_schema

# What the one line about a damaged or hostile file must say, by the name of the file.
STATED_ERRORS = {
    "bad_k1.pth": "K = 1",
    "bad_nan.pth": "2 of 256 prototypes hold NaN or infinite values (first at index 17)",
    "bad_zero_row.pth": "2 of 256 prototypes are all zero and have no direction (first at",
    "bomb_deflated_pickle.pth": "60.0 MB",
    "broken_html.pth": "web page",
    "broken_truncated_legacy.pth": "truncated",
    "broken_truncated_zip.pth": "truncated",
    "broken_zero_byte.pth": "empty",
    "evil_os_system.pth": "posix.system",
    "lying_header_offsets.safetensors": "4.2 MB",
    "timm_backbone_only.pth": "no prototypes in this file",
}


@pytest.fixture(scope="module")
def truth(shared_checkpoints: Path) -> dict[str, Any]:
    """What was planted in each file."""
    text = (shared_checkpoints / "truth.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(report_schema())


def planted_heads(heads: dict[str, Any], branch: str | None) -> dict[str, Any]:
    """Heads of a branch by their own name: `student/head`, or `head` where there is one network."""
    return {
        name.rpartition("/")[2]: head
        for name, head in heads.items()
        if head.get("branch", branch) == branch
    }


def test_every_sound_checkpoint_gives_what_was_planted(
    shared_checkpoints: Path,
    truth: dict[str, Any],
    validator: jsonschema.Draft202012Validator,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sound = [name for name in truth if name not in STATED_ERRORS]
    assert len(sound) == 18
    for name in sound:
        assert main([str(shared_checkpoints / name), "--json", "--no-nearest"]) == 0, name
        report = json.loads(capsys.readouterr().out)
        validator.validate(report)
        assert report["source"]["spec"] == name
        assert report["source"]["sha256"] == truth[name]["sha256"]
        for head in report["heads"]:
            planted = planted_heads(truth[name]["heads"], head["branch"])[head["name"]]
            found = (head["k"], head["d"], head["unique"]["greedy"])
            assert found == (planted["K"], planted["D"], planted["M_true"]), name
            assert head["unique"]["components"] == planted["M_true"], name
            factors = head["redundancy_factors"]["top"]
            assert factors[:10] == planted["redundancy_factors"], name
            if "n_singletons" in planted:  # not in the MLCD pair, which is as it was trained
                assert head["unique"]["isolated"] == planted["n_singletons"], name


def test_the_student_is_audited_on_request(
    shared_checkpoints: Path, truth: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    name = "dino_vit_full_norm.pth"
    assert main([str(shared_checkpoints / name), "--json", "--branch", "student"]) == 0
    (head,) = json.loads(capsys.readouterr().out)["heads"]
    assert head["branch"] == "student"
    assert head["unique"]["greedy"] == truth[name]["heads"]["student/head"]["M_true"] == 211


@pytest.mark.parametrize("name", STATED_ERRORS)
def test_every_broken_checkpoint_is_one_line_exit_code_2_and_no_file(
    shared_checkpoints: Path,
    validator: jsonschema.Draft202012Validator,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    arguments = [str(shared_checkpoints / name), "--json", "-o", str(tmp_path / "report.json")]
    assert main(arguments) == 2
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    validator.validate(document)
    assert document["schema"] == "collapse-audit/error"
    assert STATED_ERRORS[name] in document["error"]["message"]
    assert len(captured.err.splitlines()) == 1
    assert captured.err.startswith("error: ")
    assert list(tmp_path.iterdir()) == []


def test_every_broken_checkpoint_is_tested(truth: dict[str, Any]) -> None:
    broken = {name for name, planted in truth.items() if planted["expect"] != "ok"}
    # read without executing anything, which its truth allows
    assert broken - {"unknown_global.pth"} == set(STATED_ERRORS)
