import csv
import io
import json
import os
import re

import jsonschema
import numpy as np
import pytest
import torch
from PIL import Image

from collapse_audit.cli.entry import main
from collapse_audit.report.schema import report_schema


@pytest.fixture
def run(capsys):
    """The command line with `mlcd` before the arguments: exit code, stdout, stderr."""

    def call(*arguments):
        code = main(["mlcd", *map(str, arguments)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


@pytest.fixture
def mlcd_of(run):
    """The `mlcd` object of the JSON report."""

    def call(*arguments):
        code, out, err = run(*arguments, "--format", "json")
        assert code == 0, err
        report = json.loads(out)
        jsonschema.validate(report, report_schema())
        return report["heads"][0]["mlcd"]

    return call


@pytest.fixture
def refusal(run):
    """The one line on stderr of a run that must fail with exit code 2 and print no result."""

    def call(*arguments):
        code, out, err = run(*arguments)
        errors = [line for line in err.splitlines() if line.startswith("error:")]
        assert (code, out, len(errors)) == (2, "", 1), err
        assert not [line for line in err.splitlines() if not line.startswith(("error:", "note:"))]
        assert "internal error" not in err
        return errors[0]

    return call


def test_the_embedded_head_looks_uniform_over_k_and_not_over_m(run, mlcd_of):
    code, table, _ = run("demo", "--data", "digits")
    assert code == 0
    (title,) = [line for line in table.splitlines() if "K prototypes" in line]
    assert title.split() == ["class", "distribution", "K", "prototypes", "M", "unique"]
    mlcd = mlcd_of("demo", "--data", "digits")
    assert mlcd["n"] == 1797
    assert mlcd["mutual_information"] == pytest.approx(2.202, abs=5e-4)
    assert [mlcd["usage"][level]["used"] for level in ("k", "m")] == [257, 23]
    assert mlcd["centre"] == "none"  # the head was trained with Sinkhorn targets
    assert mlcd["k"]["kl_to_prior"] < 0.1 < mlcd["m"]["kl_to_prior"]
    (row,) = [line for line in table.splitlines() if line.startswith("perplexity")]
    k, m = (float(cell.replace(",", "")) for cell in row.split()[1:])
    assert k == pytest.approx(mlcd["k"]["perplexity"], abs=0.06)
    assert m == pytest.approx(mlcd["m"]["perplexity"], abs=0.06)


def test_the_dino_pair_gives_the_official_numbers(shared_checkpoints, tmp_path, mlcd_of):
    reference = np.load(shared_checkpoints / "dino_vit_mlcd_ref.npz")
    np.savez(tmp_path / "data.npz", images=reference["images_u8"], labels=reference["labels"])
    mlcd = mlcd_of(
        shared_checkpoints / "dino_vit_mlcd.pth", "--data", tmp_path / "data.npz",
        "--resize", "none", "--backbone-arg", "num_heads=4", "--dtype", "float64",
    )  # fmt: skip
    told = (mlcd["temperature"], mlcd["temperature_source"])
    assert told == (0.04, "training options in dino_vit_mlcd.pth")
    assert (mlcd["centre"], mlcd["centre_source"]) == ("file", None)
    np.testing.assert_allclose(
        mlcd["mutual_information"], reference["mutual_information"], rtol=1e-9
    )


@pytest.mark.parametrize("form", ["table", "csv", "markdown", "html", "json"])
@pytest.mark.parametrize(
    ("options", "temperature", "centre"),
    [
        ((), "training options in demo", "training options in demo"),
        (("--temperature", "0.07"), "option", "training options in demo"),
        (("--centre", "estimate"), "training options in demo", "option"),
    ],
)
def test_every_format_says_what_told_the_temperature_and_the_centre(
    run, form, options, temperature, centre
):
    code, out, _ = run("demo", "--data", "digits", "--limit", "20", *options, "--format", form)
    assert code == 0
    if form == "json":
        mlcd = json.loads(out)["heads"][0]["mlcd"]
        assert (mlcd["temperature_source"], mlcd["centre_source"]) == (temperature, centre)
    elif form == "csv":
        (row,) = csv.DictReader(io.StringIO(out))
        assert row["mlcd_temperature_source"] == temperature
        assert row["mlcd_centre_source"] == centre
    else:
        line = " ".join(out.split())
        value = "0.07" if temperature == "option" else "0.04"
        what = "centre estimated over these samples" if centre == "option" else "no centre"
        assert f"temperature {value} ({temperature}), {what} ({centre}), softmax" in line


def test_every_format_holds_both_levels(run, mlcd_of):
    mlcd = mlcd_of("demo", "--data", "digits", "--limit", "50")
    texts = {
        form: run("demo", "--data", "digits", "--limit", "50", "--format", form)[1]
        for form in ("table", "csv", "markdown", "html")
    }
    for form in ("table", "markdown", "html"):
        for level in ("k", "m"):
            assert f"{mlcd[level]['perplexity']:,.1f}" in texts[form], form
    (row,) = csv.DictReader(io.StringIO(texts["csv"]))
    assert float(row["mlcd_k_perplexity"]) == mlcd["k"]["perplexity"]
    assert float(row["mlcd_m_perplexity"]) == mlcd["m"]["perplexity"]
    assert int(row["mlcd_m_used"]) == mlcd["usage"]["m"]["used"]


def test_an_id_brings_the_facts_of_its_row(tmp_path, mlcd_of, run):
    """The manifest gives MSN's target network a temperature of 0.025; a matrix alone tells none."""
    generator = torch.Generator().manual_seed(0)
    file = tmp_path / "msn_vits16.pth.tar"
    torch.save({"prototypes": torch.randn(12, 16, generator=generator)}, file)
    features = np.random.default_rng(0).standard_normal((8, 16))
    np.savez(tmp_path / "x.npz", features=features)
    code, _, err = run(file, "--data", tmp_path / "x.npz")
    assert code == 2
    assert re.search(r"the softmax temperature of a file laid out like this .* --temperature", err)
    by_path = mlcd_of(file, "--data", tmp_path / "x.npz", "--temperature", "0.5")
    by_id = mlcd_of("msn_vits16", "--checkpoint-dir", tmp_path, "--data", tmp_path / "x.npz")
    assert (by_path["temperature"], by_id["temperature"]) == (0.5, 0.025)
    assert by_path["temperature_source"] == "option"
    assert by_id["temperature_source"].startswith("facebookresearch/msn@")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resize", "big"], "--resize must be a number of pixels or none"),
        (["--resize", "0"], "--resize must be a number of pixels or none"),
        (["--backbone-arg", "num_heads"], "must be key=value"),
        (["--backbone", "no_such_model"], "timm cannot build no_such_model"),
        (["--preprocessing", "imagenet"], "no preprocessing profile 'imagenet'"),
        (["--epsilon", "2"], "epsilon must be between 0 and 1"),
        (["--temperature", "-1"], "temperature must be a positive number"),
        (["--temperature", "nan"], "temperature must be a positive number"),
        (["--centre", "file"], "holds no centre"),
        (["--limit", "0"], "Invalid value for '--limit'"),
        (["--limit", "-3"], "Invalid value for '--limit'"),
        (["--seed", "-1"], "Invalid value for '--seed'"),
        (["--batch-size", "0"], "Invalid value for '--batch-size'"),
        (["--device", "abacus"], "device 'abacus'"),
        (["--device", "cuda:99"], "device 'cuda:99'"),
        (["--head", "other"], "other"),
        (["--features", "no/such/folder/f.safetensors"], "--features: there is no folder"),
        (["--resize", "7"], "images of 49 pixels do not fit"),
    ],
)
def test_bad_options_are_one_line(arguments, message, refusal):
    assert message in refusal("demo", "--data", "digits", *arguments)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"features": np.zeros((3, 10))}, "features must be n x 256 (what"),
        ({"features": np.pad([[np.nan]], ((2, 0), (0, 63)))}, "sample 2 holds NaN"),
        ({"logits": np.pad([[np.inf]], ((1, 1), (0, 511)))}, "sample 1 holds NaN or infinite"),
        ({"logits": np.zeros((3, 7))}, "logits must be n x 512"),
        ({"features": np.zeros((0, 64))}, "holds no samples"),
        ({"images": np.zeros((3, 8, 8))}, "images must be uint8"),
        ({"images": np.zeros((3, 9, 9), np.uint8)}, "images of 81 pixels do not fit"),
        ({"features": np.zeros((3, 64)), "labels": np.zeros(2, int)}, "labels must be 3 integers"),
        ({"other": np.zeros(3)}, "must hold exactly one of images, features, logits"),
    ],
)
def test_arrays_that_do_not_fit_are_one_line(arrays, message, refusal, tmp_path):
    np.savez(tmp_path / "x.npz", **arrays)
    assert message in refusal("demo", "--data", tmp_path / "x.npz")


@pytest.mark.parametrize(
    "option", [("--backbone-arg", "num_heads=4"), ("--backbone", "vit_tiny_patch16_224")]
)
def test_a_backbone_that_would_not_be_used_is_refused(option, refusal, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "x.npz", features=rng.standard_normal((3, 64)).astype(np.float32))
    message = refusal("demo", "--data", tmp_path / "x.npz", *option)
    assert "there is no backbone to build" in message
    assert message.endswith("Leave --backbone NAME and its arguments out.")
    torch.save({"head.last_layer.weight": torch.ones(9, 64).tril()}, tmp_path / "head.pth")
    images = (tmp_path / "head.pth", "--data", "digits", "--temperature", "1", "--resize", "8")
    if option[0] == "--backbone-arg":
        assert "or the file holds none" in refusal(*images, *option)


def test_images_that_do_not_fit_are_named_with_their_index(refusal, tmp_path):
    for index, size in enumerate([(8, 8), (8, 8), (9, 8)]):
        Image.new("L", size).save(tmp_path / f"{index}.png")
    message = refusal("demo", "--data", tmp_path)
    assert "image 2 (2.png)" in message


def test_unreadable_images_above_one_in_a_hundred_fail_the_run(refusal, tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "good.png")
    for name in ("bad1.png", "bad2.png"):
        (tmp_path / name).write_bytes(b"not an image")
    message = refusal("demo", "--data", tmp_path)
    assert "of 3 images cannot be read, more than 1 %" in message
    assert message.endswith("Repair or remove them, or leave them out with --skip-bad.")


def test_bad_images_of_any_number_can_be_left_out(run, refusal, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (10, 8, 8), dtype=np.uint8)
    for index, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    for name in ("1.png", "2.png", "7.png"):
        (tmp_path / name).write_bytes(b"not an image")
    code, out, err = run("demo", "--data", tmp_path, "--skip-bad", "--json")
    assert code == 0
    assert json.loads(out)["heads"][0]["mlcd"]["n"] == 7
    assert "note: skipped 3 of 10 images that cannot be read: image 1 (1.png) (" in err
    for path in tmp_path.iterdir():
        path.write_bytes(b"not an image")
    assert "10 of 10 images cannot be read" in refusal("demo", "--data", tmp_path, "--skip-bad")


def test_files_of_other_kinds_are_counted_in_a_note(run, tmp_path):
    for index in range(6):
        name = tmp_path / f"{index}.{('png', 'jfif', 'JPG')[index % 3]}"
        Image.new("L", (8, 8), 40 * index).save(name, "JPEG")
    code, out, err = run("demo", "--data", tmp_path, "--json")
    assert code == 0
    assert json.loads(out)["heads"][0]["mlcd"]["n"] == 4
    assert "left out 2 of 6 files, by their suffix (2 .jfif); images are .jpg, .jpeg, .png" in err


def test_an_empty_folder_and_a_missing_one_are_one_line(refusal, tmp_path):
    assert "no images in this folder" in refusal("demo", "--data", tmp_path)
    assert "no such file, folder or data set" in refusal("demo", "--data", tmp_path / "absent")
    assert "Missing option '--data'" in refusal("demo")


def test_an_interrupted_run_leaves_no_file_behind(run, tmp_path, monkeypatch):
    def interrupted(*_args, **_more):
        raise KeyboardInterrupt

    monkeypatch.setattr("collapse_audit.network.head_model.HeadModel.bottleneck_of", interrupted)
    output = tmp_path / "report.json"
    cache = tmp_path / "features.safetensors"
    monkeypatch.setattr("safetensors.numpy.save", interrupted)
    for extra in ([], ["--features", cache]):
        code, out, err = run("demo", "--data", "digits", "--limit", "9", "-o", output, *extra)
        assert (code, out) == (130, "")
        assert err.endswith("error: interrupted\n")
        assert list(tmp_path.iterdir()) == []


def test_features_are_kept_in_no_pipe(refusal, tmp_path):
    os.mkfifo(cache := tmp_path / "features.safetensors")
    assert "no regular file" in refusal("demo", "--data", "digits", "--features", cache)


def test_cached_features_give_the_same_numbers(mlcd_of, tmp_path):
    cache = tmp_path / "features.safetensors"
    arguments = ("demo", "--data", "digits", "--limit", "50")
    fresh = mlcd_of(*arguments, "--features", cache)
    assert cache.is_file()
    assert mlcd_of(*arguments, "--features", cache) == fresh
    np.testing.assert_allclose(
        fresh["mutual_information"], mlcd_of(*arguments)["mutual_information"], rtol=1e-5
    )


def test_images_of_any_eight_bit_mode_are_converted_and_deeper_ones_refused(
    mlcd_of, refusal, tmp_path
):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    for mode in ("L", "RGB", "RGBA", "LA", "P"):
        Image.fromarray(pixels).convert(mode).save(tmp_path / f"{mode}.png")
    mlcd = mlcd_of("demo", "--data", tmp_path, "--centre", "none")
    assert mlcd["n"] == 5
    assert mlcd["mutual_information"] < 1e-5  # five times the same grey picture
    Image.fromarray(pixels.astype(np.uint16)).save(tmp_path / "deep.png")
    assert "image 5 (deep.png) (mode I;16, not 8 bits per channel)" in refusal(
        "demo", "--data", tmp_path
    )
