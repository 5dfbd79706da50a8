"""The commands download, cache and reproduce."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from collapse_audit.cli import main
from collapse_audit.cli.commands.cache import cache_command
from collapse_audit.cli.commands.download import download_command
from collapse_audit.cli.commands.reproduce import reproduce_command
from collapse_audit.errors import ReportError, SourceError
from collapse_audit.manifest import load_manifest
from collapse_audit.manifest.entries import Manifest, PublishedCount
from collapse_audit.manifest.recipes import Recipe
from collapse_audit.sources import load_heads, load_prototypes


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLLAPSE_AUDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("COLLAPSE_AUDIT_OFFLINE")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def run(command: click.Command, *arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def test_download_then_list_verify_and_clear(server: Any, small_dino: bytes) -> None:
    server.files["a.pth"] = small_dino
    url = server.url("a.pth")
    assert run(download_command, url, "--insecure-http").stdout == f"{url}\thead\t256\t16\n"
    listed = run(cache_command, "list").stdout
    assert listed.splitlines()[0] == f"range     65,536 bytes  {url}  0-65536"
    assert listed.splitlines()[-1].startswith("2 items, ")
    rows = json.loads(run(cache_command, "list", "--json").stdout)
    assert {(row["source"], row["kind"]) for row in rows} == {(url, "range")}
    assert rows[0].keys() == {"source", "kind", "part", "size", "sha256", "path"}
    assert run(cache_command, "verify").stdout == "2 of 2 items are intact.\n"
    assert "set free" in run(cache_command, "clear", "--yes").stdout
    assert json.loads(run(cache_command, "list", "--json").stdout) == []


def test_verify_finds_damage_and_ends_with_code_1(
    server: Any, small_dino: bytes, tmp_path: Path
) -> None:
    server.files["a.pth"] = small_dino
    run(download_command, server.url("a.pth"), "--insecure-http")
    (path,) = (tmp_path / "cache").rglob("0-65536")
    path.write_bytes(path.read_bytes()[:-1] + b"\7")
    result = run(cache_command, "verify", code=1)
    assert f"damaged  {server.url('a.pth')}  0-65536: its SHA-256 is not" in result.stdout
    assert "1 of 2 items are intact." in result.stdout


def test_the_whole_file_on_request(server: Any, small_dino: bytes) -> None:
    server.files["a.pth"] = small_dino
    result = run(download_command, server.url("a.pth"), "--full", "--insecure-http")
    assert Path(result.stdout.strip()).read_bytes() == small_dino
    assert "downloading the whole file" in result.stderr


def test_quiet_says_nothing_on_stderr(server: Any, small_dino: bytes) -> None:
    server.files["a.pth"] = small_dino
    server.ranges = "ignored"
    url = server.url("a.pth")
    assert "downloading the whole file" in audit("download", url, "--insecure-http")[2]
    audit("cache", "clear", "--yes")
    assert audit("download", url, "--insecure-http", "--quiet")[2] == ""


def test_clear_asks_first_and_takes_one_source(server: Any, small_dino: bytes) -> None:
    server.files |= {"a.pth": small_dino, "b.pth": small_dino}
    urls = server.url("a.pth"), server.url("b.pth")
    run(download_command, *urls, "--insecure-http")
    refused = CliRunner().invoke(cache_command, ["clear"], input="n\n")
    assert refused.exit_code == 1
    run(cache_command, "clear", urls[0], "--yes")
    rows = json.loads(run(cache_command, "list", "--json").stdout)
    assert {row["source"] for row in rows} == {urls[1]}


def test_offline_and_limits_reach_the_storage(server: Any, small_dino: bytes) -> None:
    server.files["a.pth"] = small_dino
    with pytest.raises(SourceError, match="offline mode is on"):
        run(download_command, server.url("a.pth"), "--insecure-http", "--offline")
    with pytest.raises(SourceError, match="insecure_http=True"):
        run(download_command, server.url("a.pth"))
    with pytest.raises(SourceError, match="at most 1,000 are fetched"):
        run(download_command, server.url("a.pth"), "--insecure-http", "--max-bytes", "1000")


@pytest.fixture
def two_rows(server: Any, small_dino: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest of two rows with published counts, one of which is not on the server."""
    server.files["one.pth"] = small_dino
    row = load_manifest().get("dino_vits16")
    counts = (
        PublishedCount(unique=19, source="A paper | Table 1"),
        PublishedCount(unique=900, source="Another", k=65536),
    )
    entries = tuple(
        dataclasses.replace(
            row, id=f"dino_{name}", url=server.url(f"{name}.pth"), k=256, published=counts
        )
        for name in ("one", "two")
    )
    manifest = Manifest(entries=entries, recipes={"dino": Recipe()}, preprocessing={})
    for module in ("manifest", "sources"):
        monkeypatch.setattr(f"collapse_audit.{module}.load_manifest", lambda: manifest)


@pytest.mark.usefixtures("two_rows")
def test_reproduce_prints_published_beside_measured_and_resumes(
    server: Any, small_dino: bytes
) -> None:
    result = run(reproduce_command, "--insecure-http", code=1)
    measured, missing = result.stdout.splitlines()[2:]
    assert measured == "| dino_one | head | 256 | 19 (A paper \\| Table 1) | 20 | 20 | 0.025 |"
    assert missing.startswith("| dino_two | not measured: ")
    assert "404" in missing
    server.forget()
    server.files["two.pth"] = small_dino
    result = run(reproduce_command, "--insecure-http", "--format", "json")
    rows = json.loads(result.stdout)["rows"]
    assert [row["measured"][0]["greedy"] for row in rows] == [20, 20]
    assert {name for name, _, _ in server.requests} == {"two.pth"}


@pytest.mark.usefixtures("two_rows")
def test_reproduce_names_a_row_once_and_the_options_of_the_command_line() -> None:
    result = run(reproduce_command, "--format", "json", code=1)  # plain http is refused
    document = json.loads(result.stdout)
    kept = json.loads(Path("reproduce.json").read_text(encoding="utf-8"))
    assert document == kept, "the state and the output are the same document"
    problem = document["rows"][0]["problem"]
    assert "or allow it with --insecure-http." in problem
    assert not problem.startswith("dino_one")
    assert f"\ndino_one: {problem}\n" in f"\n{result.stderr}"


@pytest.mark.usefixtures("two_rows")
def test_reproduce_takes_the_files_of_ids_out_of_a_folder(server: Any, small_dino: bytes) -> None:
    Path("ids").mkdir()
    Path("ids/dino_two.pth").write_bytes(small_dino)
    run(reproduce_command, "--insecure-http", "--checkpoint-dir", "ids")
    assert {name for name, _, _ in server.requests} == {"one.pth"}


@pytest.mark.usefixtures("two_rows")
def test_reproduce_does_not_overwrite_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "reproduce.json").write_text('{"schema": "mine"}')
    with pytest.raises(ReportError, match="state=FILE"):
        run(reproduce_command, "--insecure-http")
    assert (tmp_path / "reproduce.json").read_text() == '{"schema": "mine"}'


def audit(*arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the program, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(arguments))
    return code, out.getvalue(), err.getvalue()


def test_an_address_is_audited_like_a_file(server: Any, small_dino: bytes, tmp_path: Path) -> None:
    server.files["dino.pth"] = small_dino
    (tmp_path / "local.pth").write_bytes(small_dino)
    url = server.url("dino.pth?sig=TOPSECRET")
    code, text, err = audit(url, "--insecure-http", "--json")
    _, local, _ = audit("local.pth", "--json")
    report, expected = json.loads(text), json.loads(local)
    assert code == 0
    assert report["source"]["spec"] == server.url("dino.pth")
    assert report["source"]["family"] == "dino"
    assert report["heads"] == expected["heads"]
    assert report["heads"][0]["unique"]["greedy"] == 20
    assert "TOPSECRET" not in text + err


def test_an_address_that_fails_is_one_line_and_code_2(server: Any) -> None:
    code, out, err = audit(server.url("none.pth?sig=TOPSECRET"), "--insecure-http")
    assert (code, out) == (2, "")
    assert "404 Not Found" in err
    assert "TOPSECRET" not in err
    code, out, err = audit(server.url("none.pth"), "--insecure-http", "--json")
    assert code == 2
    assert json.loads(out)["error"]["type"] == "SourceError"


@pytest.mark.usefixtures("two_rows")
def test_an_id_is_fetched_and_then_audited_offline(server: Any) -> None:
    code, text, _ = audit("dino_one", "--insecure-http", "--json")
    assert code == 0
    report = json.loads(text)
    assert (report["source"]["id"], report["source"]["family"]) == ("dino_one", "dino")
    assert report["heads"][0]["published"]["unique"] == 19
    server.forget()
    assert audit("dino_one", "--offline", "--json")[1] == text
    assert server.requests == []


def test_the_python_functions_take_addresses_too(
    server: Any, small_dino: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    fsspec.filesystem("memory").pipe("/bucket/head.pth", small_dino)
    monkeypatch.setenv("COLLAPSE_AUDIT_OFFLINE", "0")
    assert load_prototypes("memory://bucket/head.pth").k == 256
    assert [p.branch for p in load_heads("memory://bucket/head.pth")] == ["teacher"]
    assert server.requests == []
