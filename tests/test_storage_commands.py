"""The commands download, cache and reproduce."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from collapse_audit.cli.cache_command import cache_command
from collapse_audit.cli.download_command import download_command
from collapse_audit.cli.reproduce_command import reproduce_command
from collapse_audit.errors import ReportError, SourceError
from collapse_audit.manifest import Manifest, PublishedCount, load_manifest


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
    assert "teacher/head.last_layer.weight_v" in listed
    assert listed.splitlines()[-1].startswith("2 items, ")
    rows = json.loads(run(cache_command, "list", "--json").stdout)
    assert {row["source"] for row in rows} == {url}
    assert run(cache_command, "verify").stdout == "2 of 2 items are intact.\n"
    assert "set free" in run(cache_command, "clear", "--yes").stdout
    assert json.loads(run(cache_command, "list", "--json").stdout) == []


def test_verify_finds_damage_and_ends_with_code_1(
    server: Any, small_dino: bytes, tmp_path: Path
) -> None:
    server.files["a.pth"] = small_dino
    run(download_command, server.url("a.pth"), "--insecure-http")
    path = next((tmp_path / "cache").rglob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-1] + b"\7")
    result = run(cache_command, "verify", code=1)
    assert "damaged" in result.stdout
    assert "1 of 2 items are intact." in result.stdout


def test_the_whole_file_on_request(server: Any, small_dino: bytes) -> None:
    server.files["a.pth"] = small_dino
    result = run(download_command, server.url("a.pth"), "--full", "--insecure-http")
    assert Path(result.stdout.strip()).read_bytes() == small_dino
    assert "downloading the whole file" in result.stderr


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
    with pytest.raises(SourceError, match="--insecure-http"):
        run(download_command, server.url("a.pth"))
    with pytest.raises(SourceError, match="at most 1,000 are fetched"):
        run(download_command, server.url("a.pth"), "--insecure-http", "--max-bytes", "1000")


@pytest.fixture
def two_rows(server: Any, small_dino: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest of two rows with published counts, one of which is not on the server."""
    server.files["one.pth"] = small_dino
    row = load_manifest().get("dino_vits16")
    count = PublishedCount(unique=19, source="A paper | Table 1")
    entries = tuple(
        dataclasses.replace(
            row, id=f"dino_{name}", url=server.url(f"{name}.pth"), published=(count,)
        )
        for name in ("one", "two")
    )
    manifest = Manifest(entries=entries, families=("dino",), preprocessing={})
    monkeypatch.setattr("collapse_audit.manifest.load_manifest", lambda: manifest)


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
def test_reproduce_does_not_overwrite_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "reproduce.json").write_text('{"schema": "mine"}')
    with pytest.raises(ReportError, match="--state"):
        run(reproduce_command, "--insecure-http")
    assert (tmp_path / "reproduce.json").read_text() == '{"schema": "mine"}'
