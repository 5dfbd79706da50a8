"""HeadTrainingConfig: one definition, three ways in, and errors that say what to do."""

import dataclasses
import datetime
import random
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from collapse_audit.cli import main
from collapse_audit.cli.commands.train import train_command
from collapse_audit.errors import CollapseAuditError, ParameterError, SourceError
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
        ({"momentum": 1.5}, "momentum must be at most 1, got 1.5"),
        ({"k": 2**31}, "k must be at most 2.14748e+09, got 2147483648"),
        ({"k": 10**5000}, "got a number of more than 4,300 digits"),
        ({"seed": 2**63}, "seed must be at most 9.22337e+18"),
        ({"lr": 1e30}, "lr must be at most 1e+18, got 1e+30"),
        ({"data": "a\0b"}, r"data: 'a\x00b' cannot be a name"),
        ({"vmf": True, "d": 8}, "vmf needs d of at least 16, got 8"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ParameterError) as caught:
        HeadTrainingConfig.from_mapping(settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--batch-size", "1"], "--batch-size must be at least 2, got 1."),
        (["--student-temperature", "0"], "--student-temperature must be above 0, got 0.0."),
        (["--objective", "din"], "--objective: no 'din'. Did you mean dino?"),
        (["--sweep", "batch-size=1,2"], "sweep: batch-size must be at least 2, got 1."),
    ],
)
def test_the_command_line_names_the_flag(
    tmp_path: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--out", str(tmp_path / "run"), *flags]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_a_file_of_settings_is_named_with_the_setting(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("batch-size: 1\n")
    with pytest.raises(ParameterError, match=r"a\.yaml: batch-size must be at least 2, got 1"):
        HeadTrainingConfig.from_file(path)


STRANGE = [
    None, True, -1, 0, 2**31, 2**63, 10**400, 10**5000, 1e308, 5e-324, float("nan"), float("inf"),
    "", "\0", "\ud800", "\x1b[2J", "a" * 10_000, [], [[]], {}, {"a": 1}, b"x",
    datetime.date(2025, 1, 1),
]  # fmt: skip


@pytest.mark.parametrize("name", [entry.name for entry in dataclasses.fields(HeadTrainingConfig)])
def test_any_value_is_taken_or_refused_in_one_short_line(name: str) -> None:
    for value in STRANGE:
        message = ""
        try:
            config = HeadTrainingConfig.from_mapping({name: value})
        except ParameterError as error:
            message = str(error)
        else:
            assert yaml.safe_load(yaml.safe_dump(config.to_dict()))[name] == value
        assert len(message) < 300
        assert message.isprintable()


def test_mutated_files_of_settings_are_taken_or_refused(tmp_path: Path) -> None:
    draw, path = random.Random(0), tmp_path / "config.yaml"
    content = yaml.safe_dump({"config": HeadTrainingConfig().to_dict()}).encode()
    pieces = [b"\xff", b"\0", b"[" * 2000, b"1" * 5000, b"&a [*a]", b"!!python/none ", b"{", b": ",
              b"1e999", b"~", b"\n", b"!!binary aaaa", b"2025-01-01", b"-" * 50]  # fmt: skip
    messages = []
    for _ in range(300):
        at = draw.randrange(len(content))
        cut = draw.choice([0, 1, 8, 200])
        path.write_bytes(content[:at] + draw.choice(pieces) + content[at + cut :])
        try:
            HeadTrainingConfig.from_file(path)
        except CollapseAuditError as error:  # any other fails the test
            messages.append(str(error))
    assert 100 < len(messages) < 300
    assert all(message.isprintable() for message in messages)


def test_unreadable_files_of_settings_are_refused(tmp_path: Path) -> None:
    broken = tmp_path / "a.yaml"
    broken.write_text("k: [1\n")
    with pytest.raises(ParameterError, match=r"a\.yaml: not valid"):
        HeadTrainingConfig.from_file(broken)
    kinds = {"- k": "list", "config: 5": "int", "config:": "None", "config: [1]": "list"}
    for text, held in kinds.items():
        broken.write_text(text)
        with pytest.raises(ParameterError, match=f"holds {held}\\w*, not settings"):
            HeadTrainingConfig.from_file(broken)
    with pytest.raises(SourceError, match="cannot be read"):
        HeadTrainingConfig.from_file(tmp_path / "absent.toml")
