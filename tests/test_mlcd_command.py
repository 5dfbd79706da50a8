import json

import numpy as np
import pytest
from click.testing import CliRunner

from collapse_audit.cli.console import Session
from collapse_audit.cli.mlcd_command import mlcd_command
from collapse_audit.errors import CollapseAuditError

pytestmark = pytest.mark.filterwarnings("ignore::collapse_audit.errors.CollapseAuditWarning")


def run(*arguments):
    """The command as ``main`` calls it: our errors are raised, not printed."""
    result = CliRunner().invoke(mlcd_command, list(map(str, arguments)), obj=Session())
    if isinstance(result.exception, CollapseAuditError):
        raise result.exception
    return result


def test_the_embedded_head_looks_uniform_over_k_and_not_over_m():
    table = run("demo", "--data", "digits").stdout
    assert "K prototypes" in table
    report = json.loads(run("demo", "--data", "digits", "--format", "json").stdout)
    mlcd = report["heads"][0]["mlcd"]
    assert mlcd["n"] == 1797
    assert mlcd["k"]["kl_to_prior"] < 0.1 < mlcd["m"]["kl_to_prior"]
    assert report["heads"][0]["unique"]["greedy"] == 137


def test_the_dino_pair_gives_the_official_numbers(shared_checkpoints, tmp_path):
    reference = np.load(shared_checkpoints / "dino_vit_mlcd_ref.npz")
    np.savez(tmp_path / "data.npz", images=reference["images_u8"], labels=reference["labels"])
    result = run(
        shared_checkpoints / "dino_vit_mlcd.pth", "--data", tmp_path / "data.npz",
        "--resize", "none", "--backbone-arg", "num_heads=4", "--temperature", "0.04",
        "--dtype", "float64", "--format", "json",
    )  # fmt: skip
    mlcd = json.loads(result.stdout)["heads"][0]["mlcd"]
    assert mlcd["centre"] == "file"
    np.testing.assert_allclose(
        mlcd["mutual_information"], reference["mutual_information"], rtol=1e-9
    )


@pytest.mark.parametrize(("form", "start"), [("csv", "quantity,k,m"), ("markdown", "")])
def test_other_formats_hold_both_levels(form, start):
    text = run("demo", "--data", "digits", "--limit", "50", "--format", form).stdout
    assert text.startswith(start)
    assert "perplexity" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resize", "big"], "--resize must be a number of pixels or none"),
        (["--backbone-arg", "num_heads"], "must be key=value"),
        (["--epsilon", "2"], "epsilon must be between 0 and 1"),
        (["--temperature", "-1"], "temperature must be a positive number"),
        (["--centre", "file"], "holds no centre"),
    ],
)
def test_bad_options_are_one_line(arguments, message):
    with pytest.raises(CollapseAuditError, match=message):
        run("demo", "--data", "digits", *arguments)


def test_a_format_without_a_place_for_the_mlcd_is_refused():
    result = run("demo", "--data", "digits", "--format", "html")
    assert result.exit_code == 2
    assert "use table, json, csv, markdown" in result.stderr
