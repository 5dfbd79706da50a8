import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from collapse_audit.cli.commands.list import list_command
from collapse_audit.errors import ManifestError
from collapse_audit.manifest import CheckpointEntry, load_manifest

REPOSITORY = Path(__file__).resolve().parents[1]


def run(*arguments: str) -> str:
    result = CliRunner().invoke(list_command, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert result.stderr == ""
    return result.stdout


def test_the_table_has_one_line_per_row_and_fits_100_columns() -> None:
    heading, *lines = run().splitlines()

    assert heading.split() == ["id", "family", "backbone", "K", "D", "published", "M", "evidence"]
    assert [line.split()[0] for line in lines] == [e.id for e in load_manifest().entries]
    assert max(map(len, [heading, *lines])) <= 100


def test_a_line_shows_every_published_count_and_marks_second_hand_ones() -> None:
    (line,) = [line for line in run().splitlines() if line.startswith("dino_resnet50 ")]

    assert line.split() == [
        "dino_resnet50",
        "dino",
        "ResNet-50",
        "60000",
        "256",
        "984,",
        "908*",
        "A",
    ]


def test_unknown_numbers_are_dashes() -> None:
    (line,) = [line for line in run().splitlines() if line.startswith("rad_dino ")]

    assert line.split() == ["rad_dino", "dinov2", "ViT-B/14", "-", "-", "-", "A"]


def test_family_and_with_head_narrow_the_list() -> None:
    assert len(run("--family", "msn").splitlines()) == 1 + 5
    assert len(run("--with-head").splitlines()) == 1 + 122
    assert len(run("--family", "dinov2", "--with-head").splitlines()) == 1 + 1


def test_a_family_without_public_heads_gives_the_headings_alone() -> None:
    assert len(run("--family", "dino-vmf", "--with-head").splitlines()) == 1


def test_json_has_all_fields_of_all_rows() -> None:
    rows = json.loads(run("--json"))

    assert len(rows) == 127
    for row in rows:
        assert set(row) == {*CheckpointEntry.__slots__, "file_name"}
    resnet = next(row for row in rows if row["id"] == "dino_resnet50")
    assert resnet["k"] == 60000
    assert [count["unique"] for count in resnet["published"]] == [984, 908]
    assert resnet["file_name"] == "dino_resnet50.pth"
    assert resnet["recipe"]["teacher_temperature"] == 0.07
    assert "main_dino.py" in resnet["recipe"]["sources"]["student_temperature"]


def test_json_of_an_empty_list_is_still_json() -> None:
    assert json.loads(run("--json", "--family", "pmsn", "--with-head")) == []


def test_an_unknown_family_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(ManifestError, match=r"'dinno'.*Did you mean dino"):
        run("--family", "dinno")


def test_listing_does_not_import_torch() -> None:
    code = (
        "import sys; from collapse_audit.cli.commands.list import list_command;"
        "list_command([], standalone_mode=False);"
        "heavy = {'torch', 'pandas', 'sklearn', 'matplotlib', 'timm'} & set(sys.modules);"
        "sys.exit(', '.join(heavy) or None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
