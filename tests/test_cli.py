from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import jsonschema
import numpy as np
import pytest

from collapse_audit.cli import audit_command, console, main, progress
from collapse_audit.cli.formats import FORMATS
from collapse_audit.cli.group import COMMANDS
from collapse_audit.examples import embedded_head
from collapse_audit.manifest import COMMANDS as RESERVED
from collapse_audit.report import report_schema

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, with no setting of the outside visible."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "COLLAPSE_AUDIT_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLLAPSE_AUDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def head(folder: Path) -> str:
    """Five directions, repeated 5, 4, 3, 2 and 1 times: K = 15, M = 5."""
    directions = np.eye(5, 8, dtype=np.float32)
    np.save(folder / "head.npy", np.repeat(directions, [5, 4, 3, 2, 1], axis=0))
    return "head.npy"


@pytest.fixture
def student_only(folder: Path) -> str:
    """A checkpoint without a teacher: audited, with a note."""
    import torch

    weight = torch.eye(6, 8)
    torch.save({"student": {"head.last_layer.weight": weight}}, folder / "student.pth")
    return "student.pth"


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process: exit code, stdout, stderr."""
    assert folder.is_dir()

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def process(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command line in a process of its own, with nothing but the given environment."""
    return subprocess.run(
        [sys.executable, "-m", "collapse_audit", *arguments],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)} | environment,
        capture_output=True,
        check=False,
    )


# --- what is run ---------------------------------------------------------------------------------


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
    for name, command in COMMANDS.items():
        assert f"  {name} " in out
        assert command.summary in out


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


# --- what is printed -----------------------------------------------------------------------------


def test_every_format_prints_the_same_audit(run: Run, head: str) -> None:
    report = json.loads(run(head, "--format", "json")[1])
    jsonschema.Draft202012Validator(report_schema()).validate(report)
    assert report["source"]["spec"] == head
    assert report["heads"][0]["unique"] == {
        "greedy": 5,
        "components": 5,
        "isolated": 1,
        "bracket": [5, 5],
        "order_range": None,
        "definition_independent": True,
    }
    assert report["heads"][0]["redundancy_factors"]["top"] == [5, 4, 3, 2, 1]
    (row,) = csv.DictReader(io.StringIO(run(head, "--format", "csv")[1]))
    assert (row["k"], row["unique"], row["redundancy_max"]) == ("15", "5", "5")
    assert "15 prototypes, 5 different directions" in run(head, "--format", "markdown")[1]
    assert "15 prototypes, 5 different directions" in run(head, "--format", "html")[1]
    assert run(head, "--json") == run(head, "--format", "json")


def test_two_runs_print_the_same_bytes(run: Run, head: str) -> None:
    assert run(head, "--json") == run(head, "--json")


def test_the_checksum_is_that_of_the_file(run: Run, head: str, folder: Path) -> None:
    from hashlib import sha256

    report = json.loads(run(head, "--json")[1])
    assert report["source"]["sha256"] == sha256((folder / head).read_bytes()).hexdigest()


def test_a_report_holds_no_absolute_path(run: Run, head: str, folder: Path) -> None:
    assert str(folder) not in run(folder / head, "--json")[1]


def test_epsilon_sweep_and_nearest_are_obeyed(run: Run, head: str) -> None:
    report = json.loads(run(head, "--json", "--epsilon", "0.5", "--no-sweep", "--no-nearest")[1])
    assert report["parameters"]["epsilon"] == 0.5
    assert report["heads"][0]["sweep"] == []
    assert report["heads"][0]["nearest_cosine"] is None
    jsonschema.Draft202012Validator(report_schema()).validate(report)


def test_the_table_follows_columns_up_to_a_hundred(
    run: Run, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for columns, width in (("80", 80), ("500", 100), ("1", 72), ("nonsense", 100)):
        monkeypatch.setenv("COLUMNS", columns)
        lines = run(head)[1].splitlines()
        assert max(map(len, lines)) == width  # the rule below the name of the head


def test_notes_go_to_stderr_once_and_quiet_drops_them(run: Run, student_only: str) -> None:
    code, out, err = run(student_only, "--json")
    assert code == 0
    assert json.loads(out)["heads"][0]["branch"] == "student"
    assert err.startswith("note: student.pth: ")
    assert len(err.splitlines()) == 1
    assert run(student_only, "--json", "--quiet") == (0, out, "")
    assert run("-q", student_only, "--json") == (0, out, "")


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_the_exit_code_is_the_same_in_every_format(run: Run, head: str, form: str) -> None:
    assert run(head, "--format", form)[0] == 0
    assert run("absent.pth", "--format", form)[0] == 2
    assert run(head, "--format", form, "--head", "absent")[0] == 2
    assert run(head, "--format", form, "--epsilon", "2")[0] == 2
    assert run(head, "--format", form, "--no-such-option")[0] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.pth"], "error: absent.pth: no such file."),
        (["head.npz"], "Did you mean head.npy?"),
        (["dino_vits1"], "Did you mean dino_vits16"),
        (["lst"], "Did you mean the command 'list'?"),
        (["head.npy", "--epsilon", "2"], "epsilon must be between 0 and 1"),
        (["head.npy", "--epsilon", "nan"], "epsilon must be between 0 and 1"),
        (["head.npy", "--epsilom", "0.1"], "Did you mean '--epsilon'"),
        (["head.npy", "--format", "jsn"], "'json'"),
        (["head.npy", "other.npy"], "other.npy"),
        (["audit"], "Missing argument 'SOURCE'"),
    ],
)
def test_an_error_is_one_line_on_stderr_that_says_what_to_do(
    run: Run, head: str, arguments: list[str], message: str
) -> None:
    assert head
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert message in err


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (["absent.pth", "--format", "json"], "SourceError"),
        (["absent.pth", "--json"], "SourceError"),
        (["absent.pth", "--format=json"], "SourceError"),
        (["--json", "--no-such-option"], "NoSuchOption"),
        (["head.npy", "--epsilon", "2", "--json"], "ParameterError"),
        (["head.npy", "--json", "--format", "csv"], "UsageError"),
    ],
)
def test_with_json_an_error_is_also_a_document(
    run: Run, head: str, arguments: list[str], kind: str
) -> None:
    assert head
    code, out, err = run(*arguments)
    document = json.loads(out)
    jsonschema.Draft202012Validator(report_schema()).validate(document)
    assert code == 2
    assert document["schema"] == "collapse-audit/error"
    assert document["error"]["type"] == kind
    assert (
        err.strip() == f"error: {document['error']['message']} {document['error']['hint']}".strip()
    )


def test_after_two_dashes_nothing_is_an_option(run: Run) -> None:
    code, out, err = run("--", "--json")
    assert (code, out) == (2, "")
    assert err.startswith("error: --json: no such file.")


def test_a_file_name_cannot_move_the_cursor(run: Run) -> None:
    _, _, err = run("a\x1b[2J\nb.pth")
    assert len(err.splitlines()) == 1
    assert "\x1b" not in err


def test_a_fault_of_the_program_is_one_line_too(
    run: Run, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(audit_command, "audit_source", fail)
    code, out, err = run(head)
    assert (code, out) == (2, "")
    assert err == (
        "error: internal error: RuntimeError: broken on purpose. "
        "Run again with --debug for the traceback, and please report it.\n"
    )


def test_a_traceback_is_shown_only_on_request(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Traceback" not in run("absent.pth")[2]
    assert "Traceback" in run("absent.pth", "--debug")[2]
    assert "Traceback" in run("--debug", "absent.pth")[2]
    monkeypatch.setenv("COLLAPSE_AUDIT_DEBUG", "0")
    assert "Traceback" not in run("absent.pth")[2]
    monkeypatch.setenv("COLLAPSE_AUDIT_DEBUG", "1")
    assert "Traceback" in run("absent.pth")[2]


def test_an_interrupt_is_130(run: Run, head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(audit_command, "audit_source", interrupt)
    code, out, err = run(head)
    assert (code, out) == (130, "")
    assert err.strip() == "error: interrupted"


def test_errors_are_coloured_only_where_that_is_wanted(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    red = click.style("error:", fg="red")
    assert red not in run("absent.pth")[2]  # a pipe
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert run("absent.pth")[2].startswith(red)
    assert red not in run("absent.pth", "--no-color")[2]
    monkeypatch.setenv("NO_COLOR", "1")
    assert red not in run("absent.pth")[2]


# --- files ---------------------------------------------------------------------------------------


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
    monkeypatch.setattr(audit_command, "audit_source", lambda *_: pytest.fail("worked first"))
    before = Path(head).read_bytes()
    code, out, err = run(head, "-o", output)
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


# --- processes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["list"], ["schema"]])
def test_light_commands_import_nothing_heavy(folder: Path, arguments: list[str]) -> None:
    code = (
        "import sys; from collapse_audit.cli import main; code = main(sys.argv[1:]); "
        "print(*sys.modules, sep='\\n', file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    heavy = {"torch", "scipy", "sklearn", "pandas", "matplotlib", "timm", "jinja2", "safetensors"}
    assert heavy.isdisjoint(done.stderr.split())
    assert done.stdout


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_narrow_encoding_does_not_stop_the_result(folder: Path, head: str, encoding: str) -> None:
    done = process(head, cwd=folder, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode(encoding)
    assert "#####" in text
    assert "?" not in text
    assert text.replace("#", "\N{FULL BLOCK}") == process(
        head, cwd=folder, PYTHONIOENCODING="utf-8"
    ).stdout.decode("utf-8")


def test_a_reader_that_went_away_is_no_error(folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "collapse_audit", "schema"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        assert running.stderr.read() == b""
        assert running.wait() == 0


# --- progress ------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_long_work_shows_a_bar_on_a_terminal_and_clears_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "DELAY_SECONDS", 0)
    with progress.progress_bars(wanted=True) as report:
        report("cover", 50, 100)
        report("sweep", 1, 7)
    shown = terminal.getvalue()
    assert "cover:" in shown
    assert "/100 " in shown
    assert "sweep:" in shown
    assert shown.endswith("\r")


def test_short_work_shows_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress.progress_bars(wanted=True) as report:
        report("cover", 100, 100)
    assert terminal.getvalue().strip() == ""


@pytest.mark.parametrize(("wanted", "stream"), [(False, Terminal()), (True, io.StringIO())])
def test_no_bar_in_pipes_or_if_not_wanted(
    monkeypatch: pytest.MonkeyPatch, wanted: bool, stream: io.StringIO
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "DELAY_SECONDS", 0)
    with progress.progress_bars(wanted=wanted) as report:
        report("cover", 50, 100)
    assert stream.getvalue() == ""


def test_text_that_an_encoding_can_express_is_left_alone() -> None:
    assert console.encodable("\N{FULL BLOCK}", "utf-8") == "\N{FULL BLOCK}"
    assert console.encodable("\N{FULL BLOCK}\N{SNOWMAN}", "ascii") == "#?"


# --- demo ----------------------------------------------------------------------------------------


def test_the_demo_shows_a_trained_collapse_with_its_bracket_and_how_to_go_on(run: Run) -> None:
    code, out, err = run("demo", "--json")
    report: dict[str, Any] = json.loads(out)
    jsonschema.Draft202012Validator(report_schema()).validate(report)
    (embedded,) = report["heads"]
    assert code == 0
    assert (report["source"]["spec"], report["source"]["family"]) == ("demo", None)
    assert (embedded["k"], embedded["d"], embedded["branch"]) == (512, 64, "teacher")
    stored = json.loads(embedded_head().with_suffix(".audit.json").read_text(encoding="utf-8"))
    assert embedded["unique"] == stored["unique"]
    assert embedded["redundancy_factors"]["max"] == stored["largest_redundancy_factor"] == 51
    assert (embedded["unique"]["greedy"], embedded["unique"]["bracket"]) == (112, [78, 143])
    assert not embedded["unique"]["definition_independent"]
    assert all(line.startswith("hint: collapse-audit ") for line in err.splitlines())
    assert len(err.splitlines()) == 4
    assert run("demo", "--json", "--quiet") == (0, out, "")


def test_the_demo_has_the_output_options_of_an_audit(run: Run, folder: Path) -> None:
    code, out, _ = run("demo", "-o", "demo.md", "--epsilon", "0.1")
    assert (code, out) == (0, "")
    assert "epsilon 0.1" in (folder / "demo.md").read_text(encoding="utf-8")
