"""TOML and YAML files of settings."""

from __future__ import annotations

import datetime
import os
import time
from pathlib import Path

import pytest

from collapse_audit.errors import ManifestError, ParameterError, SourceError
from collapse_audit.settings import read_settings


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.toml", 'k = 3\nnames = ["x", "y"]\n[nested]\nday = 2026-01-31\n'),
        ("a.yaml", "k: 3\nnames: [x, y]\nnested: {day: 2026-01-31}\n"),
        ("a.yml", "base: &b {day: 2026-01-31}\nk: 3\nnames: [x, y]\nnested: {<<: *b}\n"),
    ],
)
def test_both_formats_say_the_same(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    found = read_settings(tmp_path / name)
    found.pop("base", None)
    assert found == {"k": 3, "names": ["x", "y"], "nested": {"day": datetime.date(2026, 1, 31)}}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.toml", b"k = 1\nk = 2\n", "not valid TOML: Cannot overwrite a value"),
        ("a.toml", b"[", "not valid TOML: "),
        ("a.toml", b"\xff", "not valid TOML: 'utf-8' codec"),
        ("a.yaml", b"a:\n  k: 1\n  j: 2\n  k: 3\n", "not valid YAML: line 4: k stands there twice"),
        ("a.yaml", b"[1: 2", "not valid YAML: "),
        ("a.yaml", b"? [a]\n: b\n", "not valid YAML: "),
        ("a.yaml", b"!!python/object/apply:os.getcwd []", "not valid YAML: could not determine"),
        ("a.yaml", b"day: 2024-13-45", "not valid YAML: month must be in 1..12"),
    ],
)
def test_what_is_wrong_is_one_line_with_the_name(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ParameterError, match=message) as caught:
        read_settings(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: not valid")
    assert "\n" not in str(caught.value)


LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
HOSTILE = {
    "lists of one another": ("a.yaml", LAUGHS, "more than 100,000 values"),
    "a list of itself": ("a.yaml", "a: &a [*a, *a]", "more than 100,000 values"),
    "many values": ("a.yaml", f"a: [{'b,' * 200_000}]", "more than 100,000 values"),
    "a number of many digits": ("a.yaml", f"a: 0x{'f' * 100_000}", "a number of over 70 digits"),
    "a number of sixties": ("a.yaml", ":".join(["59"] * 200_000), "a number of over 70 digits"),
    "a number of 64 bits": ("a.yaml", "a: {b: [0x8000000000000000]}", "a number of 64 bits"),
    "a large number": ("a.toml", f"a = 0x{'f' * 100_000}", "a number of 64 bits or more"),
    "a key of many parts": ("a.toml", f"{'a.' * 400_000}a = 1", "a key of over 300 parts"),
    "a table of many parts": ("a.toml", f"[{'a.' * 400_000}a]", "a key of over 300 parts"),
    "deep lists": ("a.toml", f"a = {'[' * 100_000}", "recursion"),
    "deep maps": ("a.yaml", "{a: " * 100_000, "exceeded maximum nesting depth"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_settings_that_mean_harm_end_soon_in_one_line(tmp_path: Path, what: str) -> None:
    name, text, message = HOSTILE[what]
    (tmp_path / name).write_text(text, encoding="utf-8")
    began = time.process_time()
    with pytest.raises(ParameterError, match=message) as caught:
        read_settings(tmp_path / name)
    assert time.process_time() - began < 5
    assert len(str(caught.value).splitlines()) == 1


def test_settings_without_end_are_not_read(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="too large"):
        read_settings(Path("/dev/zero"))
    (tmp_path / "a.toml").write_text("#" * 2_000_000)
    with pytest.raises(SourceError, match="too large"):
        read_settings(tmp_path / "a.toml")


def test_the_caller_chooses_the_error_for_what_a_file_holds(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("[", encoding="utf-8")
    with pytest.raises(ManifestError, match=r"a\.yaml: not valid YAML"):
        read_settings(tmp_path / "a.yaml", ManifestError)


def test_a_file_that_cannot_be_read_is_the_files_fault(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"cannot be read \(No such file or directory\)"):
        read_settings(tmp_path / "absent.yaml", ManifestError)


@pytest.mark.parametrize("name", ["a.toml", "a.yaml"])
def test_a_pipe_is_read_if_somebody_writes_and_refused_at_once_if_not(
    tmp_path: Path, name: str
) -> None:
    pipe, text = tmp_path / name, "k = 3" if name == "a.toml" else "k: 3"
    os.mkfifo(pipe)
    with pytest.raises(SourceError, match=r"cannot be read \(a pipe that nobody writes into\)"):
        read_settings(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # so that writing needs no thread
    pipe.write_text(text, encoding="utf-8")
    assert read_settings(pipe) == {"k": 3}
    os.close(reader)


def test_a_device_without_an_end_is_refused() -> None:
    with pytest.raises(SourceError, match=r"/dev/zero: cannot be read \(too large"):
        read_settings(Path("/dev/zero"))
