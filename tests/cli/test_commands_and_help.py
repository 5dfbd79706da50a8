"""Which command is run, and what the help says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from collapse_audit.cli.group import COMMANDS
from collapse_audit.manifest.reading import COMMANDS as RESERVED
from collapse_audit.report.schema import KINDS, document_schema, report_schema
from tests.cli.conftest import Run


def test_a_source_alone_is_audited(run: Run, head: str) -> None:
    code, out, err = run(head)
    assert (code, err) == (0, "")
    assert "33.3 % of the prototypes are unique: 15 prototypes, 5 different directions." in out
    assert run("audit", head) == (code, out, err)


def test_options_may_stand_before_the_source_and_before_the_command(run: Run, head: str) -> None:
    assert run("--epsilon", "0.025", head) == run(head)
    assert run("--quiet", "--no-color", "schema") == run("schema")


def test_a_command_wins_over_a_file_of_the_same_name(run: Run, head: str, folder: Path) -> None:
    (folder / head).rename(folder / "schema")
    assert json.loads(run("schema")[1]) == report_schema()
    assert "15 prototypes, 5 different directions" in run("audit", "schema")[1]


@pytest.mark.parametrize("kind", KINDS)
def test_the_schema_of_every_document_is_printed(run: Run, kind: str) -> None:
    code, out, err = run("schema", kind)
    assert (code, err) == (0, "")
    assert json.loads(out) == document_schema(kind)


def test_no_manifest_id_can_equal_a_command() -> None:
    assert set(COMMANDS) <= RESERVED


def test_nothing_to_do_prints_the_help_and_is_a_usage_error(run: Run) -> None:
    code, out, err = run()
    assert (code, out) == (2, "")
    assert err.startswith("Usage: collapse-audit")


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_lists_every_command(run: Run, option: str) -> None:
    code, out, err = run(option)
    assert (code, err) == (0, "")
    for name, summary in COMMANDS.items():
        assert f"  {name} " in out
        assert summary in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_the_shared_options(run: Run, name: str) -> None:
    code, out, err = run(name, "--help")
    assert (code, err) == (0, "")
    assert f"collapse-audit {name}" in out
    for option in ("--quiet", "--no-color", "--debug"):
        assert option in out


@pytest.mark.parametrize("name", ["audit", "demo", "schema"])
def test_help_has_an_example(run: Run, name: str) -> None:
    assert "Example" in run(name, "--help")[1]


def test_version_is_one_line(run: Run) -> None:
    from collapse_audit import __version__

    assert run("--version") == (0, f"collapse-audit {__version__}\n", "")
