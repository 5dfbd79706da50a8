"""Errors: one line on stderr, an exit code, and a document for who asked for JSON."""

from __future__ import annotations

import json

import click
import jsonschema
import pytest

from collapse_audit.cli.commands import audit as audit_command
from collapse_audit.cli.formats import FORMATS
from collapse_audit.report.schema import report_schema
from tests.cli.conftest import Run


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
        (["lst"], "Did you mean the command list?"),
        (["head.npy", "--epsilon", "2"], "epsilon must be between 0 and 1"),
        (["head.npy", "--epsilon", "nan"], "epsilon must be between 0 and 1"),
        (
            ["head.npy", "--metric", "euclidean", "--epsilon", "0.1"],
            "metric is euclidean. Give --radius NUMBER",
        ),
        (["head.npy", "--radius", "0.1"], "metric is cosine. Give --epsilon NUMBER"),
        (
            ["head.npy", "--metric", "euclidean", "--radius", "0"],
            "radius must be a distance from",
        ),
        (["head.npy", "--epsilom", "0.1"], "Did you mean '--epsilon'"),
        (["head.npy", "--format", "jsn"], "'json'"),
        (["head.npy", "--head", "a", "--head", "b"], "--head: 2 names for 1 sources"),
        (["audit"], "Missing argument 'SOURCE...'"),
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
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(audit_command, "audits_of", fail)
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


@pytest.mark.parametrize("debug", [(), ("--debug",)])
@pytest.mark.parametrize(
    "address",
    [
        "http://user:sEcReT@127.0.0.1:1/x.pth",
        "http://127.0.0.1:1/x.pth?sig=sEcReT",
        "https://user:sEc ReT@127.0.0.1:1/x.pth#sEcReT",
        "http://user:sEcReT@[bad/x.pth",
        "ftp://user:sEcReT@127.0.0.1:1/x.pth",
        "nosuch://user:sEcReT@host/x.pth",
    ],
)
def test_no_secret_of_an_address_is_printed(
    run: Run, monkeypatch: pytest.MonkeyPatch, address: str, debug: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLLAPSE_AUDIT_OFFLINE", "0")
    monkeypatch.setattr("time.sleep", lambda _: None)
    code, out, err = run(address, "--insecure-http", *debug)
    assert (code, out, "Traceback" in err) == (2, "", bool(debug))
    assert "ReT" not in err


@pytest.mark.parametrize("debug", [(), ("--debug",)])
def test_not_even_a_fault_of_the_program_prints_one(
    run: Run, head: str, monkeypatch: pytest.MonkeyPatch, debug: tuple[str, ...]
) -> None:
    def fail(*_: object, **__: object) -> None:
        error = RuntimeError("http://user:sEcReT@host/x.pth?sig=sEcReT fails")
        error.__cause__ = ConnectionError("Max retries exceeded with url: /x.pth?sig=sEcReT (no)")
        raise error

    monkeypatch.setattr(audit_command, "audits_of", fail)
    err = run(head, *debug)[2]
    assert "internal error: RuntimeError: http://host/x.pth fails." in err
    assert "ReT" not in err


def test_an_interrupt_is_130(run: Run, head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(audit_command, "audits_of", interrupt)
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
