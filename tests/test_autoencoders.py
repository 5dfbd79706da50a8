"""Decoders of sparse autoencoders: which way round, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from collapse_audit import CheckpointError, SourceError, audit_source, load_prototypes
from collapse_audit.checkpoints.loading import load_located
from collapse_audit.checkpoints.structure import discover_heads
from collapse_audit.cli import main
from collapse_audit.containers.opening import read_checkpoint, read_path
from collapse_audit.history import find_checkpoints
from tests.dictionary_layouts import AUTOENCODERS, as_layers, as_parameters, folder_of
from tests.planted import D, State, noise, rows
from tests.small_checkpoints import MemorySource

SQUARE = {"W_dec": noise(D, D), "W_enc": noise(D, D), "b_enc": noise(D), "b_dec": noise(D)}


def error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["audit", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("layout", AUTOENCODERS)
def test_every_layout_gives_the_latents_as_they_were_planted(layout: str, tmp_path: Path) -> None:
    loaded = load_prototypes(AUTOENCODERS[layout].write(tmp_path))
    np.testing.assert_array_equal(loaded.rows, rows(30).numpy())


def test_a_decoder_that_is_named_lies_as_the_file_tells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # it used to be audited as 24 prototypes of 60 dimensions, all of them unique
    torch.save(as_layers(), tmp_path / "ae.pt")
    (found,) = audit_source(tmp_path / "ae.pt", head="decoder.weight")
    assert (found.prototypes.k, found.prototypes.d, found.num_unique) == (60, D, 30)
    assert main(["audit", str(tmp_path / "ae.pt"), "--head", "decoder.weight"]) == 0
    assert "transposed: stored as 24 x 60" in capsys.readouterr().out


@pytest.mark.parametrize("others", [{}, {"scores.weight": noise(7, 5)}], ids=["alone", "among"])
def test_a_decoder_without_its_encoder_is_taken_as_the_user_says(
    others: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ae.pt"
    torch.save({"decoder.weight": rows(30).T.contiguous()} | others, path)
    assert "decoder.weight" in error(capsys, str(path))
    stored, turned = (load_prototypes(path, head=f"decoder.weight{t}") for t in ("", ".T"))
    assert (stored.k, stored.d, turned.k, turned.d) == (D, 60, 60, D)
    assert turned.notes == ()
    if others:
        assert any("KEY.T would take its columns" in note for note in stored.notes)


def test_a_square_decoder_is_not_guessed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sae.safetensors"
    save_file(SQUARE, path)
    line = error(capsys, str(path))
    assert "do not tell whether its latents are rows or columns" in line
    assert line.endswith("Choose its rows with --head W_dec, or its columns with --head W_dec.T.")
    weight = SQUARE["W_dec"].numpy()
    np.testing.assert_array_equal(load_prototypes(path, head="W_dec").rows, weight)
    np.testing.assert_array_equal(load_prototypes(path, head="W_dec.T").rows, weight.T)
    assert main(["info", str(path)]) == 0
    assert "rows or columns" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b_enc": noise(D), "b_dec": noise(D)}, "contradict one another"),
        ({"b_enc": noise(59)}, "is stored as 60 x 24, but b_enc has 59 latents"),
    ],
)
def test_what_contradicts_itself_is_refused(
    change: State, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(as_parameters() | change, tmp_path / "sae.pt")
    assert message in error(capsys, str(tmp_path / "sae.pt"))


def test_the_configuration_of_another_autoencoder_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = {"d_in": D, "d_sae": 512}
    folder_of(tmp_path, "sae_weights.safetensors", as_parameters(), cfg=cfg)
    assert "but the configuration (d_sae) has 512 latents" in error(capsys, str(tmp_path))


@pytest.mark.parametrize(
    ("weights", "state", "configuration"),
    [
        ("sae_weights.safetensors", as_parameters(), "cfg.json"),
        ("sae.safetensors", as_parameters(), "cfg.json"),
        ("ae.pt", as_layers(), "config.json"),
    ],
)
def test_a_folder_without_its_configuration_is_one_line_and_exit_2(
    weights: str,
    state: State,
    configuration: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder_of(tmp_path, weights, state)
    line = error(capsys, str(tmp_path))
    assert "the folder of a sparse autoencoder without its configuration" in line
    assert configuration in line
    # what it says to do: the weights alone tell
    assert str(tmp_path / weights) in line
    assert load_prototypes(tmp_path / weights).k == 60


@pytest.mark.parametrize("text", ["", "[1, 2]", "{", '{"d_sae": 60, "d_sae": 24}', "\xff"])
def test_a_configuration_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    folder_of(tmp_path, "ae.pt", as_layers())
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError, match="its configuration is not JSON"):
        load_prototypes(tmp_path)


@pytest.mark.parametrize("value", [None, "60", [60], True, 0, {"a": 1}, 1e300, 10**900])
def test_a_configuration_may_hold_anything(value: object, tmp_path: Path) -> None:
    cfg = {"d_sae": value, "d_in": value, "trainer": value}
    folder_of(tmp_path, "sae_weights.safetensors", as_parameters(), cfg=cfg)
    assert load_prototypes(tmp_path).k == 60


def test_a_release_of_several_names_the_folders_inside(tmp_path: Path) -> None:
    for layer in ("layer_3", "layer_12"):
        folder_of(tmp_path / layer, "ae.pt", as_layers(), config={})
    with pytest.raises(SourceError, match=r"Give one of the checkpoints inside: .*layer_12\."):
        load_prototypes(tmp_path)


def test_a_folder_of_an_autoencoder_is_one_checkpoint_of_a_run(tmp_path: Path) -> None:
    for step in (10, 20):
        folder_of(tmp_path / f"step_{step}", "ae.pt", as_layers(), config={})
    assert [file.label for file in find_checkpoints(tmp_path)] == ["step 10", "step 20"]


@pytest.mark.parametrize("layout", ["upright", "transposed"])
def test_of_a_million_latents_the_decoder_alone_is_read(layout: str) -> None:
    k, d = 1 << 20, 4
    values = torch.arange(k * d, dtype=torch.float32).reshape(k, d) + 1
    state: State = {"encoder.weight": torch.zeros(k, d), "encoder.bias": torch.zeros(k)}
    state |= {"decoder.weight": values.T.contiguous()}
    if layout == "upright":
        state = {"W_dec": values, "W_enc": torch.zeros(d, k), "b_enc": torch.zeros(k)}
    source = MemorySource(saved(state))
    checkpoint = read_checkpoint(source, "sae")
    (head,) = discover_heads(checkpoint)
    assert (head.k, head.d) == (k, d)
    assert source.bytes_read < 10_000  # the index
    (loaded,) = load_located(checkpoint, [head], "sae")
    assert source.bytes_read < values.nbytes + 10_000
    np.testing.assert_array_equal(loaded.rows, values.numpy())


def saved(state: State) -> bytes:
    from safetensors.torch import save

    return bytes(save(state))


def test_a_million_latents_of_an_npz_are_read_alone(tmp_path: Path) -> None:
    k, d = 1 << 20, 4
    values = np.arange(k * d, dtype=np.float32).reshape(k, d) + 1
    np.savez(tmp_path / "params.npz", W_dec=values, W_enc=values.T, threshold=values[:, 0])
    source = MemorySource((tmp_path / "params.npz").read_bytes())
    checkpoint = read_checkpoint(source, "params.npz")
    (loaded,) = load_located(checkpoint, discover_heads(checkpoint), "params.npz")
    np.testing.assert_array_equal(loaded.rows, values)
    assert source.bytes_read < values.nbytes + 1_000_000
    assert read_path(tmp_path, "params").container == "npz"
