"""The wheel: what a user installs, tested from a folder where the repository is out of sight."""

from __future__ import annotations

import fnmatch
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import collapse_audit
from collapse_audit.report.schema import KINDS

pytestmark = pytest.mark.slow

# A user's environment: nothing of the test run or of the working tree leaks into it.
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("PYTHON", "COLLAPSE_AUDIT", "PYTEST", "VIRTUAL_ENV"))
}


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command that must succeed and return what it printed."""
    done = subprocess.run(
        command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel, made with the hatchling of this environment: no download."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=repository)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the scripts of a clean environment that has the wheel and its dependencies."""
    environment = tmp_path_factory.mktemp("environment")
    here = tmp_path_factory.mktemp("elsewhere")
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=here)
    scripts = environment / "bin"
    # The dependencies come from the environment of this test run. A .pth file inside a folder that
    # was added by a .pth file is not read, so the editable installation there stays invisible.
    site_packages = Path(
        run(
            scripts / "python",
            "-c",
            "import sysconfig; print(sysconfig.get_path('purelib'))",
            cwd=here,
        ).strip()
    )
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    beside = Path(sys.executable).parent
    uv = shutil.which("uv", path=f"{beside}{os.pathsep}{os.environ.get('PATH', '')}")
    install: list[str | Path] = (
        [uv, "pip", "install", "--offline", "--python", scripts / "python"]
        if uv
        else [sys.executable, "-m", "pip", "--python", scripts / "python", "install", "--no-index"]
    )
    run(*install, "--no-deps", wheel, cwd=here)
    return scripts


@pytest.mark.parametrize(
    "pattern",
    [
        "collapse_audit/checkpoints_manifest.yaml",
        "collapse_audit/py.typed",
        *(f"collapse_audit/report/{kind}_schema.json" for kind in KINDS),
        "collapse_audit/examples/*.safetensors",
        "collapse_audit-*.dist-info/licenses/LICENSE",
    ],
)
def test_wheel_holds_the_data_the_package_needs(wheel: Path, pattern: str) -> None:
    assert fnmatch.filter(zipfile.ZipFile(wheel).namelist(), pattern)


def test_wheel_holds_nothing_but_the_package(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert tops == {"collapse_audit", f"collapse_audit-{collapse_audit.__version__}.dist-info"}


def test_installed_package_is_the_one_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    code = "import collapse_audit; print(collapse_audit.__file__)"
    printed = run(installed / "python", "-c", code, cwd=tmp_path)
    assert Path(printed.strip()).is_relative_to(installed.parent)


def test_installed_command_prints_its_version(installed: Path, tmp_path: Path) -> None:
    printed = run(installed / "collapse-audit", "--version", cwd=tmp_path)
    assert collapse_audit.__version__ in printed


def test_installed_command_lists_the_manifest_that_was_packaged(
    installed: Path, tmp_path: Path
) -> None:
    assert json.loads(run(installed / "collapse-audit", "list", "--json", cwd=tmp_path))


def test_installed_command_audits_the_packaged_head(installed: Path, tmp_path: Path) -> None:
    assert run(installed / "collapse-audit", "demo", cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []
