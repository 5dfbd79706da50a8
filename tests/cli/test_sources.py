"""What a source may be on the command line: several, a pipe, the demo; and who copies whom."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from safetensors.numpy import save_file

from collapse_audit.cli import main
from collapse_audit.containers import limits
from collapse_audit.examples import embedded_head
from collapse_audit.report.schema import report_schema
from tests.cli.conftest import Run


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> object:
    """Make bytes come from a pipe."""

    def bring(data: bytes) -> None:
        stream = io.TextIOWrapper(io.BufferedReader(io.BytesIO(data)))  # type: ignore[arg-type, unused-ignore]
        monkeypatch.setattr(sys, "stdin", stream)

    return bring


@pytest.fixture
def heads(folder: Path) -> tuple[str, str]:
    """Two files with two heads each, x and y: M = 4 and 3, and 2 and 1."""
    for file, groups in (("one", ([0, 1, 2, 3], [0, 1, 2, 2])), ("two", ([0, 1, 1, 1], [0] * 4))):
        rows = zip(("x", "y"), groups, strict=True)
        eye = np.eye(4, 8, dtype=np.float32)
        tensors = {f"{name}.last_layer.weight": eye[group] for name, group in rows}
        save_file(tensors, folder / f"{file}.safetensors")
    return "one.safetensors", "two.safetensors"


# --- several sources ------------------------------------------------------------------------------


def test_csv_has_one_row_for_each_head_of_each_source(run: Run, heads: tuple[str, str]) -> None:
    code, out, _ = run("audit", *heads, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert [(row["source"], row["head"], row["unique"]) for row in rows] == [
        ("one.safetensors", "x", "4"),
        ("one.safetensors", "y", "3"),
        ("two.safetensors", "x", "2"),
        ("two.safetensors", "y", "1"),
    ]


def test_json_of_several_sources_is_a_list_of_their_reports(
    run: Run, heads: tuple[str, str]
) -> None:
    documents = json.loads(run(*heads, "--json")[1])
    jsonschema.Draft202012Validator(report_schema()).validate(documents)
    assert documents == [json.loads(run(head, "--json")[1]) for head in heads]


@pytest.mark.parametrize("form", ["table", "markdown", "html"])
def test_text_of_several_sources_holds_each(run: Run, heads: tuple[str, str], form: str) -> None:
    code, out, err = run(*heads, "--format", form)
    assert (code, err) == (0, "")
    assert out.index("one.safetensors") < out.index("All 4 prototypes are unique")
    assert out.index("two.safetensors") < out.index("4 prototypes, 1 different direction")
    if form == "html":
        assert out.count("<!DOCTYPE html>") == out.count("</html>") == 1
    else:
        assert out == "\n".join(run(head, "--format", form)[1] for head in heads)


@pytest.mark.parametrize(
    ("names", "expected"), [(["y"], ["y", "y"]), (["x", "y"], ["x", "y"]), (["y", "x"], ["y", "x"])]
)
def test_a_head_is_chosen_for_all_sources_or_for_each(
    run: Run, heads: tuple[str, str], names: list[str], expected: list[str]
) -> None:
    options = [word for name in names for word in ("--head", name)]
    documents = json.loads(run(*heads, *options, "--json")[1])
    assert [head["name"] for report in documents for head in report["heads"]] == expected


def test_a_source_that_cannot_be_audited_does_not_cost_the_others(
    run: Run, heads: tuple[str, str], folder: Path
) -> None:
    np.save(folder / "nan.npy", np.full((4, 4), np.nan))
    sources = (heads[0], "nan.npy", "absent.pth", heads[1])
    code, out, err = run(*sources, "--json")
    documents = json.loads(out)
    jsonschema.Draft202012Validator(report_schema()).validate(documents)
    assert code == 2
    assert ["error" in document for document in documents] == [False, True, True, False]
    lines = err.splitlines()
    assert [line.split(":")[1].strip() for line in lines] == ["nan.npy", "absent.pth"]
    code, out, _ = run(*sources, "--format", "csv")
    assert (code, len(out.splitlines())) == (2, 5)
    for form in ("csv", "table", "html"):
        assert run("absent.pth", "gone.pth", "--format", form)[:2] == (2, "")


def test_a_saved_list_is_no_single_report(run: Run, heads: tuple[str, str]) -> None:
    run(*heads, "-o", "both.json")
    code, _, err = run("check", "both.json", "--fail-on", "M<2")
    assert code == 2
    assert "both.json: holds the reports of several sources. Save one report in each file." in err


# --- a pipe ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [["audit"], [], ["info"], ["check", "--fail-on", "M<2"], ["compare", "demo"]],
    ids=lambda words: " ".join(words) or "alone",
)
def test_a_dash_is_the_checkpoint_that_a_pipe_brings(
    run: Run, pipe: object, command: list[str]
) -> None:
    content = embedded_head().read_bytes()
    pipe(content)  # type: ignore[operator]
    code, out, err = run(*command, "-", "--json")
    assert (code, err) == (0, "")
    path = str(embedded_head())
    expected = run(*command, path, "--json")[1]
    assert out == expected.replace(embedded_head().name, "stdin")


def test_mlcd_takes_a_pipe_too(run: Run, pipe: object) -> None:
    pipe(embedded_head().read_bytes())  # type: ignore[operator]
    code, out, _ = run("mlcd", "-", "--data", "digits", "--limit", "50", "--json")
    assert (code, json.loads(out)["heads"][0]["mlcd"]["n"]) == (0, 50)


@pytest.mark.parametrize("data", [b"", b"<html>", b"PK\x03\x04"])
def test_what_is_no_checkpoint_is_one_line(run: Run, pipe: object, data: bytes) -> None:
    pipe(data)  # type: ignore[operator]
    code, out, err = run("-")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith("error: stdin: ")


def test_a_pipe_without_end_is_refused(
    run: Run, pipe: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PIPE_BYTES", 300_000)
    pipe(embedded_head().read_bytes())  # type: ignore[operator]
    assert "stdin: more than 0.3 MB. Save it to a file" in run("-")[2]
    monkeypatch.setattr(sys, "stdin", None)
    assert "stdin: there is none here" in run("-")[2]


# --- the demo -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ["audit", "demo"],
        ["info", "demo"],
        ["check", "demo", "--fail-on", "M<112"],
        ["compare", "demo", "demo"],
        ["mlcd", "demo", "--data", "digits", "--limit", "20"],
    ],
    ids=lambda words: words[0],
)
def test_the_demo_is_a_source_of_every_command(run: Run, command: list[str]) -> None:
    code, out, _ = run(*command)
    assert code == 0
    assert "512" in out or "all" in out or "passed" in out


def test_the_demo_needs_no_fetching(run: Run) -> None:
    for command in (["download"], ["cache", "clear", "--yes"]):
        code, _, err = run(*command, "demo")
        assert (code, err) == (
            2,
            "error: demo: is inside the package; there is nothing to fetch.\n",
        )


def test_a_file_called_demo_is_not_taken_for_it(run: Run, head: str, folder: Path) -> None:
    (folder / head).rename(folder / "demo")
    code, _, err = run("audit", "demo")
    assert (code, err.strip()) == (
        2,
        "error: demo: is the demo and a file in this folder. Write ./demo for the file.",
    )
    assert "15 prototypes, 5 different directions" in run("./demo")[1]


# --- groups ---------------------------------------------------------------------------------------


def test_the_groups_say_who_copies_whom(run: Run, heads: tuple[str, str], folder: Path) -> None:
    assert run(*heads, "--groups", "g.csv", "-o", "r.csv")[0] == 0
    rows = list(csv.DictReader((folder / "g.csv").read_text("utf-8").splitlines()))
    assert list(rows[0]) == ["source", "head", "branch", "prototype", "group", "leader"]
    found = {
        (source, name): [
            (int(row["prototype"]), int(row["group"]), int(row["leader"]))
            for row in rows
            if (row["source"], row["head"]) == (source, name)
        ]
        for source in heads
        for name in ("x", "y")
    }
    assert found["two.safetensors", "x"] == [(0, 1, 0), (1, 0, 1), (2, 0, 1), (3, 0, 1)]
    assert found["two.safetensors", "y"] == [(i, 0, 0) for i in range(4)]
    assert len(rows) == 16


def test_an_array_of_groups_is_that_of_one_head(run: Run, heads: tuple[str, str]) -> None:
    for command in (["demo"], ["mlcd", "demo", "--data", "digits", "--limit", "20"]):
        assert run(*command, "--groups", "g.npy")[0] == 0
        table = np.load("g.npy")
        assert (table.shape, table.dtype) == ((512, 2), np.int64)
        group, leader = table.T
        assert len(set(group.tolist())) == len(set(leader.tolist())) == 112
        assert np.bincount(group).tolist() == sorted(np.bincount(group), reverse=True)
        np.testing.assert_array_equal(group[leader], group)
    assert run(heads[0], "--head", "y", "--groups", "y.npy")[0] == 0
    code, out, err = run(heads[0], "--groups", "y.npy")
    assert (code, out) == (2, "")
    assert "an array holds one head, and there are 2. Choose one with --head" in err


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("g.txt", "--groups: g.txt: is neither .csv nor .npy"),
        ("no/g.csv", "--groups: there is no folder no"),
        ("head.npy", "--groups: head.npy is the source itself"),
    ],
)
def test_groups_that_cannot_be_written_are_refused_before_the_work(
    run: Run, head: str, monkeypatch: pytest.MonkeyPatch, file: str, message: str
) -> None:
    from collapse_audit.cli.commands import audit

    monkeypatch.setattr(audit, "audits_of", lambda *_, **__: pytest.fail("worked first"))
    code, out, err = run(head, "--groups", file)
    assert (code, out) == (2, "")
    assert message in err


# --- completion -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("collapse-audit dino_vit", ["plain,dino_vits16", "file,dino_vit"]),
        ("collapse-audit de", ["plain,demo"]),
        ("collapse-audit audit dem", ["plain,demo", "file,dem"]),
        ("collapse-audit compare swav_rn50 dino_vitb", ["plain,dino_vitb16"]),
        ("collapse-audit mlcd run/check", ["file,run/check"]),
        ("collapse-audit --h", ["plain,--help"]),
        ("collapse-audit audit --gr", ["plain,--groups"]),
    ],
)
def test_a_shell_completes_ids_and_files(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    typed: str,
    expected: list[str],
) -> None:
    monkeypatch.setenv("_COLLAPSE_AUDIT_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split()) - 1))
    with pytest.raises(SystemExit):
        main([])
    offered = capsys.readouterr().out.splitlines()
    assert set(expected) <= set(offered)
    if typed.rpartition(" ")[2].startswith("-"):
        assert not [line for line in offered if line.startswith("file")]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_the_shell_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shell: str
) -> None:
    monkeypatch.setenv("_COLLAPSE_AUDIT_COMPLETE", f"{shell}_source")
    with pytest.raises(SystemExit):
        main([])
    assert f"_COLLAPSE_AUDIT_COMPLETE={shell}_complete" in capsys.readouterr().out


def version_of_bash() -> tuple[int, ...]:
    found = shutil.which("bash")
    if found is None:
        return (0,)
    asked = subprocess.run(
        [found, "-c", "echo ${BASH_VERSINFO[0]} ${BASH_VERSINFO[1]}"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return tuple(map(int, asked.stdout.split()))


@pytest.mark.skipif(version_of_bash() < (4, 4), reason="click completes in bash from 4.4 on")
def test_bash_itself_completes_with_the_script(tmp_path: Path, repository: Path) -> None:
    program = tmp_path / "bin" / "collapse-audit"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m collapse_audit "$@"\n')
    program.chmod(0o755)
    typed = ["dino_vit", "run/che", "audit --gr", "mlcd de"]
    script = """
eval "$(_COLLAPSE_AUDIT_COMPLETE=bash_source collapse-audit)"
complete -p collapse-audit
compopt() { others="$1 $2"; }  # which bash has only while a key is handled
for line in "$@"; do
    COMP_WORDS=(collapse-audit $line) COMP_CWORD=$(wc -w <<< "$line")
    COMPREPLY=() others=
    _collapse_audit_completion collapse-audit
    echo "${COMPREPLY[@]} / $others"
done
"""
    environment = os.environ | {
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(repository),
    }
    done = subprocess.run(
        [shutil.which("bash") or "", "--norc", "-c", script, "bash", *typed],
        cwd=tmp_path, env=environment, check=True, capture_output=True, text=True,
    )  # fmt: skip
    bound, ids, files, options, demo = done.stdout.splitlines()
    assert bound.endswith("-F _collapse_audit_completion collapse-audit")
    assert {"dino_vits16", "dino_vitb8"} <= set(ids.split())
    assert files == " / -o default"  # bash looks for the file itself
    assert options == "--groups / "
    assert demo.startswith("demo ")
    assert done.stderr == ""


# --- messages -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "library", "shown"),
    [
        (
            ["mlcd", "demo", "--data", "fashion-mnist"],
            "data=fashion",
            "--data fashion-mnist:FOLDER",
        ),
        (["check", "demo"], "baseline=FILE", "Give --baseline FILE, or"),
        (["https://127.0.0.1:9/x.npy"], "offline=True", "or leave --offline (COLLAPSE_AUDIT_OFFL"),
        (["check", "r.json", "--fail-on", "nearest_cosine.max>0.9"], "nearest=True", "--nearest."),
    ],
)
def test_the_library_speaks_of_parameters_and_the_command_line_of_options(
    run: Run, arguments: list[str], library: str, shown: str
) -> None:
    run("demo", "--no-nearest", "-o", "r.json")
    _, _, err = run(*arguments)
    assert shown in err
    assert library not in err
    document = json.loads(run(*arguments, "--json")[1])
    assert shown in document["error"]["message"] + document["error"]["hint"]


@pytest.mark.parametrize(
    ("arguments", "quoted"),
    [
        (["run/epsilon=0.1/head.pth"], "run/epsilon=0.1/head.pth: no such file"),
        (["run/head.pth", "--head", "branch=student"], "run/head.pth: no such file"),
        (["check", "demo", "--fail-on", "epsilon=0.1"], "'epsilon=0.1' is not a threshold"),
        (["compare", "demo", "demo", "--pair", "head="], "NAME=NAME, got 'head='"),
        (
            ["check", "epsilon=0.1/h.pth", "--baseline", "head=NAME.json"],
            "head=NAME.json: there is no baseline yet. Create it with: "
            "collapse-audit check epsilon=0.1/h.pth --baseline head=NAME.json --update-baseline",
        ),
        (["epsilon=0.10.npy"], "Did you mean epsilon=0.1.npy?"),
    ],
)
def test_what_the_user_typed_is_never_taken_for_a_parameter(
    run: Run, folder: Path, arguments: list[str], quoted: str
) -> None:
    (folder / "epsilon=0.1.npy").touch()
    assert quoted in run(*arguments)[2]


@pytest.mark.parametrize("form", ["junit", "github"])
def test_a_ci_system_is_told_the_option_too(run: Run, form: str) -> None:
    _, out, err = run("check", "demo", "--format", form)
    assert "Give --baseline FILE, or" in out
    assert "Give --baseline FILE, or" in err


def test_a_ci_system_is_told_the_whole_of_a_long_error(run: Run) -> None:
    name = "x" * 150
    command = f"--baseline {name}.json --update-baseline"
    _, out, _ = run("check", "demo", "--baseline", f"{name}.json", "--format", "junit")
    assert command in out
