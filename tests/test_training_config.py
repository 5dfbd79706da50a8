"""HeadTrainingConfig: one definition, three ways in, and errors that say what to do."""

import dataclasses
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from collapse_audit.cli.commands.train import train_command
from collapse_audit.errors import ParameterError, SourceError
from collapse_audit.training.config import HeadTrainingConfig


def test_yaml_toml_and_flags_give_the_same_configuration(tmp_path: Path) -> None:
    yaml_file, toml_file = tmp_path / "a.yaml", tmp_path / "a.toml"
    yaml_file.write_text("k: 512\nregulariser: koleo-proto\nlr: 1.0e-3\nfreeze-backbone: true\n")
    toml_file.write_text(
        'k = 512\nregulariser = "koleo-proto"\nlr = 1e-3\nfreeze_backbone = true\n'
    )
    expected = HeadTrainingConfig(k=512, regulariser="koleo-proto", lr=1e-3, freeze_backbone=True)
    assert HeadTrainingConfig.from_file(yaml_file) == expected
    assert HeadTrainingConfig.from_file(toml_file) == expected
    assert HeadTrainingConfig.from_mapping(expected.to_dict()) == expected


def test_every_setting_is_a_flag_with_help() -> None:
    text = CliRunner().invoke(train_command, ["--help"]).output
    for entry in dataclasses.fields(HeadTrainingConfig):
        assert f"--{entry.name.replace('_', '-')}" in text
        assert entry.metadata["help"]


def test_the_configuration_in_a_run_folder_is_read_back(tmp_path: Path) -> None:
    config = HeadTrainingConfig(k=64, seed=3)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"config": config.to_dict(), "x": 1}))
    assert HeadTrainingConfig.from_file(tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"regulariser": "koleo-prto"}, "no 'koleo-prto'. Did you mean koleo-proto"),
        ({"objective": "x"}, "objective: no 'x'. Choose from dino, probability-centring"),
        ({"regularizer": "none"}, "unknown setting 'regularizer'. Did you mean regulariser"),
        ({"zzz": 1}, "unknown setting 'zzz'. Settings: data,"),
        ({"k": 1}, "k must be at least 2, got 1"),
        ({"k": "many"}, "k must be int, got 'many'"),
        ({"k": True}, "k must be int, got True"),
        ({"batch_size": 1}, "batch_size must be at least 2, got 1"),
        ({"lr": 0.0}, "lr must be above 0, got 0"),
        ({"lr": float("nan")}, "lr must be above 0, got nan"),
        ({"lr": "1e-3"}, "lr must be float, got '1e-3'. Write 1.0e-3"),
        ({"momentum": 1.5}, "momentum must be at least 0 and at most 1, got 1.5"),
        ({"vmf": True, "d": 8}, "vmf needs d of at least 16, got 8"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ParameterError) as caught:
        HeadTrainingConfig.from_mapping(settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_files_of_settings_are_refused(tmp_path: Path) -> None:
    broken = tmp_path / "a.yaml"
    broken.write_text("k: [1\n")
    with pytest.raises(ParameterError, match=r"a\.yaml: not valid"):
        HeadTrainingConfig.from_file(broken)
    broken.write_text("- k\n")
    with pytest.raises(ParameterError, match="holds list, not settings"):
        HeadTrainingConfig.from_file(broken)
    with pytest.raises(SourceError, match="cannot be read"):
        HeadTrainingConfig.from_file(tmp_path / "absent.toml")
