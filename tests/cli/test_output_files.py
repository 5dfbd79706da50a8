"""Reports in files: the format their name implies, and what is never overwritten."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from collapse_audit.cli.commands import audit as audit_command
from tests.cli.conftest import Run


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("r.json", "json"),
        ("r.csv", "csv"),
        ("r.md", "markdown"),
        ("r.HTML", "html"),
        ("r.txt", "table"),
        ("r", "table"),
    ],
)
def test_the_name_of_the_file_implies_the_format(
    run: Run, head: str, folder: Path, name: str, form: str
) -> None:
    assert run(head, "-o", name) == (0, "", "")
    assert (folder / name).read_text(encoding="utf-8") == run(head, "--format", form)[1]


def test_a_format_that_is_given_wins_over_the_name(run: Run, head: str, folder: Path) -> None:
    run(head, "-o", "report.html", "--json")
    assert json.loads((folder / "report.html").read_text(encoding="utf-8"))["heads"]


def test_a_page_has_the_groups_of_every_head(run: Run, head: str, folder: Path) -> None:
    assert run(head, head, "-o", "report.html") == (0, "", "")
    assert (folder / "report.html").read_text(encoding="utf-8").count(' data-groups="0') == 2


WRITES = {
    "audit": (".txt, .json, .csv, .md, .markdown, .html, .htm", ["r.pdf", "r.xlsx", "r.xml"]),
    "compare": (".txt, .json, .csv, .md, .markdown, .html, .htm", ["r.pdf", "r.XML"]),
    "check": (".txt, .json, .md, .markdown, .xml", ["r.html", "r.csv", "r.xlsx"]),
}


@pytest.mark.parametrize(
    ("command", "name"), [(c, name) for c, (_, names) in WRITES.items() for name in names]
)
def test_a_name_that_implies_no_format_of_the_command_is_refused_before_the_work(
    run: Run, head: str, monkeypatch: pytest.MonkeyPatch, command: str, name: str
) -> None:
    monkeypatch.setattr("collapse_audit.auditing.audit_heads", lambda *_: pytest.fail("worked"))
    more = {"compare": [head], "check": ["--fail-on", "M<1"]}.get(command, [])
    code, out, err = run(command, head, *more, "-o", name)
    assert (code, out) == (2, "")
    suffix = Path(name).suffix.lower()
    assert f"error: -o: {name}: this command writes no {suffix}. It writes" in err
    assert f"It writes {WRITES[command][0]}; --format chooses for any other name." in err
    assert not Path(name).exists()


def test_a_dash_is_stdout(run: Run, head: str) -> None:
    assert run(head, "-o", "-") == run(head)


REFUSED_OUTPUTS = {
    "no/such/folder/r.json": "there is no folder no/such/folder. Try: mkdir -p no/such/folder",
    ".": "is a folder",
    "head.npy": "is the source itself",
}


@pytest.mark.parametrize("output", REFUSED_OUTPUTS)
def test_an_output_that_cannot_be_is_refused_before_the_work(
    run: Run, head: str, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    monkeypatch.setattr(audit_command, "audits_of", lambda *_, **__: pytest.fail("worked first"))
    before = Path(head).read_bytes()
    code, out, err = run(head, "-o", output, "--format", "table")
    assert (code, out) == (2, "")
    assert REFUSED_OUTPUTS[output] in err
    assert Path(head).read_bytes() == before
    assert [path.name for path in Path().iterdir()] == [head]


def test_an_error_leaves_an_older_report_as_it_was(run: Run, folder: Path) -> None:
    (folder / "report.json").write_text("old", encoding="utf-8")
    assert run("absent.pth", "-o", "report.json")[0] == 2
    assert (folder / "report.json").read_text(encoding="utf-8") == "old"


def test_a_write_that_fails_half_way_leaves_nothing_behind(
    run: Run, head: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "report.json").write_text("old", encoding="utf-8")

    def full(self: Path, target: Path) -> None:
        assert self.read_text(encoding="utf-8").startswith("{")
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(Path, "replace", full)
    code, out, err = run(head, "-o", "report.json")
    assert (code, out) == (2, "")
    assert err == "error: -o: cannot write report.json: No space left on device.\n"
    assert (folder / "report.json").read_text(encoding="utf-8") == "old"
    assert sorted(path.name for path in folder.iterdir()) == [head, "report.json"]


def test_a_link_stays_a_link_and_a_device_stays_a_device(run: Run, head: str, folder: Path) -> None:
    (folder / "link.json").symlink_to("real.json")
    assert run(head, "-o", "link.json") == (0, "", "")
    assert (folder / "link.json").is_symlink()
    assert json.loads((folder / "real.json").read_text(encoding="utf-8"))["heads"]
    assert run(head, "-o", os.devnull) == (0, "", "")
    assert Path(os.devnull).is_char_device()


def test_a_new_file_has_the_permissions_of_the_umask(run: Run, head: str, folder: Path) -> None:
    (folder / "other").touch()
    run(head, "-o", "report.json")
    assert (folder / "report.json").stat().st_mode == (folder / "other").stat().st_mode


@pytest.mark.parametrize("mask", [0o027, 0o077])
def test_every_file_that_is_written_has_the_permissions_of_the_user(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, mask: int
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    before = os.umask(mask)
    try:
        assert run("demo", "-o", "r.html", "--groups", "g.npy")[0] == 0
        assert run("compare", "demo", "demo", "-o", "c.csv")[0] == 0
        gate = ("--baseline", "b.json", "--missing-baseline", "create", "--format", "github")
        assert run("check", "demo", *gate, "-o", "v.txt")[0] == 0
        digits = ("--data", "digits", "--limit", "20", "--features", "f.safetensors")
        assert run("mlcd", "demo", *digits)[0] == 0
        small = ("--iterations", "2", "--limit", "40", "--k", "8", "--pool", "2")
        assert run("train", "--out", "run", *small)[0] == 0
        assert run("train", "--out", "sweep", *small, "--sweep", "k=8,16")[0] == 0
    finally:
        os.umask(before)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {".html", ".npy", ".csv", ".safetensors", ".svg"}
    wrong = [str(path) for path in files if path.stat().st_mode & 0o777 != 0o666 & ~mask]
    assert not wrong
