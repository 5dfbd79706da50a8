"""Secrets in addresses: in no message, report, cache or lock file, wherever they stand."""

from __future__ import annotations

import random
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collapse_audit.cli.entry import main
from collapse_audit.errors import CollapseAuditError
from collapse_audit.remote.addresses import Remote, remote_of_url
from collapse_audit.words import redact, scrub

MARK = "s3cr3t"
ODD = "/?#@:%&=+;,!$'()*[]~ \t\"<>\\|^`{}é\u202e\x1b"
around = st.text(ODD + "ab1", max_size=4)
secrets = st.builds(lambda a, b: f"{a}{MARK}{b}", around, around)
POSITIONS = (
    "https://user:{}@example.org/a.pth", "https://{}@example.org/a.pth",
    "https://{}:x@example.org/a.pth", "sftp://user:{}@example.org/a.pth",
    "HTTPS://user:{}@example.org/a.pth", "https://user:12{}@example.org/a@b.pth",
    "s3://user:{}@bucket/a.pth", "hf://user:{}@org/repo/a.pth",
    "zip://a.pth::http://user:{}@example.org/a.zip", "https://example.org/a.pth#{}",
    "simplecache::http://user:{}@example.org/a.pth", "https://example.org/a.pth?sig={}",
    "filecache::zip://a.pth::https://user:{}@example.org/a.zip",
)  # fmt: skip


def names_of(url: str) -> str:
    """Everything that an address is called by, or the error for it."""
    try:
        remote = remote_of_url(url)
    except CollapseAuditError as error:
        return str(error)
    return f"{remote.name} {remote.lock_key} {remote.file_name} {remote.key}"


@given(secrets, st.sampled_from(POSITIONS))
def test_no_name_of_an_address_has_its_secret(secret: str, position: str) -> None:
    if "{}" in position.partition("?")[2] + position.partition("#")[2] and "/" in secret:
        secret = secret.replace("/", "")  # the last part of an address names the file
    url = position.format(secret)
    assert MARK not in names_of(url)
    assert MARK not in redact(url)


@given(secrets.filter(lambda s: not set(s) & set(" \t\"'<>")), st.sampled_from(POSITIONS))
def test_no_address_in_a_message_has_its_secret(secret: str, position: str) -> None:
    assert MARK not in scrub(f"cannot open {position.format(secret)} now")


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("verb", ["audit", "info", "check", "download", "compare", "clear"])
def test_no_output_has_a_secret(
    position: str, verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    draw = random.Random(position + verb)
    for _ in range(4):
        secret = "".join(draw.choices("/?#@:" + string.ascii_letters, k=3)) + MARK
        if "?sig" in position or "#" in position:
            secret = secret.replace("/", "")
        url = position.format(secret)
        more = {
            "check": ["--baseline", "none.json", "--format", "github"],
            "compare": [url],
            "clear": ["--yes"],
        }.get(verb, [])
        words = ["cache", "clear", url] if verb == "clear" else [verb, url]
        code = main([*words, *more, "--offline", "--cache-dir", "cache"])
        out, err = capsys.readouterr()
        assert code == (0 if verb == "clear" and code == 0 else 2)
        assert MARK not in out + err
        for path in tmp_path.rglob("*"):
            assert MARK not in str(path)
            assert path.is_dir() or MARK.encode() not in path.read_bytes()


ONE_SLASH = (f"http:/user:{MARK}@example.org/a.pth", f"HTTPS:/user:{MARK}@example.org/a.json")


@pytest.mark.parametrize("url", ONE_SLASH)
@pytest.mark.parametrize(
    "words",
    [
        ["audit", "{}"], ["info", "{}"], ["download", "{}"], ["history", "{}"], ["mlcd", "{}",
        "--data", "digits"], ["cache", "clear", "{}"], ["compare", "{}", "demo"],
        ["check", "{}", "--fail-on", "M<1"], ["check", "{}", "--baseline", "none.json"],
        ["check", "demo", "--baseline", "{}"], ["check", "demo", "--config", "{}"],
        ["audit", "demo", "-o", "{}"], ["mlcd", "demo", "--data", "{}"],
    ],
)  # fmt: skip
def test_an_address_with_one_slash_is_no_path_with_a_password_in_it(
    url: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main([word.format(url) for word in words]) == 2
    out, err = capsys.readouterr()
    assert MARK not in out + err
    assert err.count("\n") == 1


@pytest.mark.parametrize("url", [*ONE_SLASH, ONE_SLASH[0].replace("/", "//", 1)])
def test_no_exception_of_the_library_has_the_password(url: str) -> None:
    from collapse_audit import audit, audit_history, compare

    for call in (audit, audit_history, lambda url: compare(url, url)):
        with pytest.raises(CollapseAuditError) as caught:
            call(url)
        assert MARK not in str(caught.value)


def test_a_report_of_an_address_with_a_password_has_it_nowhere(
    server: Any, small_dino: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for name in ("COLLAPSE_AUDIT_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    server.files["a.pth"] = small_dino
    url = server.url(f"a.pth?x={MARK}").replace("http://", f"http://user:@:{MARK}@")
    options = ["--insecure-http", "--cache-dir", "cache"]
    for form in ("json", "table", "csv", "markdown", "html"):
        assert main(["audit", url, "--format", form, *options]) == 0, capsys.readouterr()
    assert main(["cache", "list", "--json", *options]) == 0
    out, err = capsys.readouterr()
    assert MARK not in out + err
    assert all(MARK.encode() not in p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    "url",
    [
        "zip://a.pth::http://user:pw@127.0.0.1:1/a.zip", "simplecache::http://127.0.0.1:1/a.pth",
        "filecache::http://127.0.0.1:1/a.pth", "blockcache::https://127.0.0.1:1/a.pth",
        "https://127.0.0.1:1/a.zip::zip://a.pth", "tar://a::memory://b", "memory://a::b",
        "::https://127.0.0.1/a.pth", "dir::file:///tmp/a.pth",
    ],
)  # fmt: skip
def test_chains_are_refused_in_one_line(
    url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["audit", url, "--cache-dir", str(tmp_path / "cache")]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert "chain" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://[::1]:8443/a.pth", "https://[::1]:8443/a.pth"),
        ("https://u:p@[::1]/a.pth?x=1", "https://[::1]/a.pth"),
        ("https://example.org/a::b.pth", "https://example.org/a::b.pth"),
        ("hf://org/repo@v1/a@b.pth", "hf://org/repo@v1/a@b.pth"),
        ("s3://bucket/run@5/a.pth", "s3://bucket/run@5/a.pth"),
    ],
)
def test_genuine_addresses_keep_their_names(url: str, shown: str) -> None:
    assert remote_of_url(url) == Remote(shown, (url,))
