"""The light way to install, without torch, as the hook and the action do: a clean environment."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement

from collapse_audit.cli import main
from tests.small_checkpoints import safetensors_of

NEEDED = ("collapse_audit", ".ci", "checkpoints_manifest.yaml", "pyproject.toml", "README.md",
          "LICENSE", "requirements-light.txt")  # fmt: skip
FILES = ("head.safetensors", "head.npz", "zip.pth", "legacy.pth")
Light = Callable[..., subprocess.CompletedProcess[str]]


def listed(repository: Path) -> list[str]:
    lines = (repository / "requirements-light.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]


def test_the_list_has_the_bounds_of_the_package_and_is_what_the_page_says(
    repository: Path,
) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(listed(repository)) <= set(project["project"]["dependencies"])
    page = (repository / "docs" / "gate.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^pip install (click .*)$", page, flags=re.MULTILINE)
    assert command.split() == [Requirement(line).name for line in listed(repository)]


@pytest.fixture(scope="module")
def light(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Light:
    """The light command of a copy of the repository, with an environment of its own."""
    here = tmp_path_factory.mktemp("repository")
    probe = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir"]
    reached = subprocess.run([*probe, "-d", here, "click"], check=False, capture_output=True)
    if reached.returncode:
        pytest.skip("the package index cannot be reached")
    for name in NEEDED:
        source = repository / name
        ignored = shutil.ignore_patterns("__pycache__", ".light")
        if source.is_dir():
            shutil.copytree(source, here / name, ignore=ignored)
        else:
            shutil.copy(source, here / name)

    def run(*arguments: str, cwd: Path = here) -> subprocess.CompletedProcess[str]:
        command = [here / ".ci" / "light", *arguments]
        environment = {"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, "HOME": str(here)}
        return subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
        )

    first = run("--version")
    assert first.returncode == 0, first.stderr
    return run


@pytest.fixture(scope="module")
def heads(small_dino: bytes, legacy_dino: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file of each kind, of which the first is collapsed."""
    folder = tmp_path_factory.mktemp("heads")
    rows = np.random.default_rng(0).standard_normal((40, 16)).astype(np.float32)
    rows[20:] = rows[:20]
    header = {"prototypes.weight": {"dtype": "F32", "shape": [40, 16], "data_offsets": [0, 2560]}}
    (folder / "head.safetensors").write_bytes(safetensors_of(header, rows.tobytes()))
    np.savez(folder / "head.npz", prototypes=rows[:20] + np.eye(20, 16, dtype=np.float32))
    (folder / "zip.pth").write_bytes(small_dino)
    (folder / "legacy.pth").write_bytes(legacy_dino)
    return folder


@pytest.mark.slow
def test_no_torch_is_installed_and_little_else(light: Light, repository: Path) -> None:
    installed = {path.name.partition("-")[0].lower() for path in _packages(light)}
    names = {Requirement(line).name.lower() for line in listed(repository)}
    assert names <= installed
    assert installed.isdisjoint({"torch", "timm", "pandas", "matplotlib", "scikit_learn"})
    behind = {"collapse_audit", "certifi", "charset_normalizer", "idna", "markupsafe"}
    assert installed <= names | behind | {"pip", "setuptools"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        *(("info", name) for name in FILES),
        *(("audit", name, "--format", "json") for name in FILES),
        *(("check", name, "--fail-on", "fraction<0.9") for name in FILES),
        ("audit", "head.npz", "--format", "html"),
        ("compare", "head.npz", "head.safetensors"),
        ("compare", "head.npz", "head.safetensors", "--match", "optimal"),
    ],
    ids=" ".join,
)
def test_a_command_prints_what_it_prints_with_everything_installed(
    light: Light,
    heads: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
) -> None:
    found = light(*arguments, cwd=heads)
    monkeypatch.chdir(heads)
    code = main(arguments)
    expected = capsys.readouterr()
    assert found.returncode == code, found.stderr
    assert found.stderr == expected.err
    assert words(found.stdout) == words(expected.out)


@pytest.mark.slow
def test_a_baseline_is_made_and_kept(light: Light, heads: Path, tmp_path: Path) -> None:
    baseline = ["--baseline", str(tmp_path / "baseline.json")]
    assert light("check", "head.npz", *baseline, "--update-baseline", cwd=heads).returncode == 0
    assert light("check", "head.npz", *baseline, cwd=heads).returncode == 0
    assert light("check", "head.safetensors", *baseline, cwd=heads).returncode == 2
    assert "dino_vits16" in light("list", cwd=heads).stdout


@pytest.mark.slow
def test_what_needs_more_says_so_in_one_line(light: Light, heads: Path, tmp_path: Path) -> None:
    for arguments in (
        ("mlcd", "head.safetensors", "--data", "digits"),
        ("train", "--out", str(tmp_path / "run")),
    ):
        done = light(*arguments, cwd=heads)
        assert done.returncode == 2
        assert re.fullmatch(
            r"error: This needs (torch|sklearn), which is not installed\. "
            r"Install the whole package\.\n",
            done.stderr,
        )


def words(text: str) -> list[str | object]:
    """Words; other builds of numpy may round the last digits of a number in another way."""
    parts = re.split(r"([-+]?[0-9]+\.[0-9]+(?:e-?[0-9]+)?)", " ".join(text.split()))
    return [pytest.approx(float(part), rel=1e-6, abs=1e-6) if place % 2 else part
            for place, part in enumerate(parts)]  # fmt: skip


def _packages(light: Light) -> list[Path]:
    root = Path(light("--version").args[0]).parent / ".light"
    return [path for path in root.rglob("*.dist-info") if path.is_dir()]
