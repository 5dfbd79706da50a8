"""Settings of `check` in TOML files."""

from __future__ import annotations

from pathlib import Path

import pytest

from collapse_audit.errors import ParameterError
from collapse_audit.gate.settings import find_settings, read_settings


def test_settings_are_found_upwards_and_paths_are_relative_to_their_file(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[tool.collapse-audit.check]\nfail-on = ["M:-5%"]\nbaseline = "heads/b.json"\n'
        'missing-baseline = "skip"\nepsilon = 0.05\nallow = ["k"]\n',
        encoding="utf-8",
    )
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "pyproject.toml").write_text("[project]\nname = 'x'\n", encoding="utf-8")
    settings = find_settings(inner)
    assert settings.fail_on == ("M:-5%",)
    assert settings.baseline == tmp_path / "heads" / "b.json"
    assert (settings.missing_baseline, settings.epsilon, settings.allow) == ("skip", 0.05, ("k",))


def test_a_file_of_our_own_wins_over_pyproject(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        "[tool.collapse-audit.check]\nepsilon = 0.05\n", encoding="utf-8"
    )
    (tmp_path / "collapse-audit.toml").write_text("[check]\nepsilon = 0.1\n", encoding="utf-8")
    assert find_settings(tmp_path).epsilon == 0.1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[check]\nfail_on = []\n", "no setting 'fail_on'. Did you mean fail-on"),
        ("[check]\nfail-on = 'M:-5%'\n", "must be a list of strings"),
        ("[check]\nepsilon = '0.1'\n", "epsilon must be a float"),
        ("[check]\nmissing-baseline = 'ignore'\n", "'ignore' is none of fail, create, skip"),
        ("[check]\nallow = ['K']\n", "allow: 'K' is none of schema"),
        ("[check]\nfail-on = ['M:-5%', 'M:x']\n", "collapse-audit.toml: 'M:x' is not a threshold"),
        ("[check]\nfail-on = ['size<1']\n", "collapse-audit.toml: .*'size'"),
        ("[check]\nepsilon = 2.0\n", "collapse-audit.toml: epsilon must be between 0 and 1"),
        ("[check\n", "not valid TOML"),
        ("[other]\n", r"has no table \[check\]"),
    ],
)
def test_a_wrong_setting_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "collapse-audit.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ParameterError, match=message):
        read_settings(path)
