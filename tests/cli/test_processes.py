"""The command line in a process of its own: imports, encodings, pipes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from collapse_audit.cli import console


def process(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command line in a process of its own, with nothing but the given environment."""
    return subprocess.run(
        [sys.executable, "-m", "collapse_audit", *arguments],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)} | environment,
        capture_output=True,
        check=False,
    )


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


def test_text_that_an_encoding_can_express_is_left_alone() -> None:
    assert console.encodable("\N{FULL BLOCK}", "utf-8") == "\N{FULL BLOCK}"
    assert console.encodable("\N{FULL BLOCK}\N{SNOWMAN}", "ascii") == "#?"
