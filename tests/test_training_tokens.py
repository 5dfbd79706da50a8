"""iBOT's patch term in the loop: used when a file of features holds patch tokens."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from collapse_audit.errors import ParameterError, SourceError
from collapse_audit.training.checkpointing import load_state, save_state
from collapse_audit.training.config import HeadTrainingConfig
from collapse_audit.training.data import load_data
from collapse_audit.training.loop import TrainingState, make_state, train

SAMPLES, TOKENS, WIDTH = 24, 5, 6


def arrays() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(3)
    whole = draw.normal(size=(SAMPLES, TOKENS, WIDTH)).astype(np.float32)
    return {
        "features": whole.mean(axis=1),
        "tokens": whole,
        "masked_tokens": (whole + draw.normal(size=whole.shape)).astype(np.float32),
        "token_mask": draw.random((SAMPLES, TOKENS)) < 0.5,
    }


@pytest.fixture
def config(tmp_path: Path) -> HeadTrainingConfig:
    path = tmp_path / "tokens.npz"
    np.savez(path, **arrays())
    return HeadTrainingConfig(
        data=str(path), k=12, d=8, hidden=10, batch_size=6, iterations=8, warmup=2, noise=0.0,
        objective="dino", save_every=3, audit_every=1,
    )  # fmt: skip


def run(
    config: HeadTrainingConfig, on_save: Callable[[TrainingState], None] = lambda _: None
) -> tuple[TrainingState, list[float]]:
    """Train, and return the final state with the objective of every step."""
    losses: list[float] = []

    def record(_: TrainingState, means: dict[str, float]) -> dict[str, float]:
        losses.append(means["objective"])
        return {}

    data = load_data(config)
    state = make_state(config, data)
    train(state, data, config, on_audit=record, on_save=on_save, quiet=True)
    return state, losses


def test_the_first_step_adds_the_patch_term_of_the_definition(config: HeadTrainingConfig) -> None:
    data = load_data(config)
    network = make_state(config, data).student
    tokens = data.tokens.batch(config, 0)
    with torch.no_grad():
        student = network(tokens.masked)[2].double() / config.student_temperature
        teacher = network(tokens.whole)[2].double() / config.teacher_temperature
    per_image = []
    for image in range(config.batch_size):
        terms = []
        for token in range(TOKENS):
            if tokens.mask[image, token]:
                target = torch.exp(teacher[image, token])
                logs = student[image, token] - torch.exp(student[image, token]).sum().log()
                terms.append(-sum(target / target.sum() * logs))
        per_image.append(sum(terms) / max(1, len(terms)))
    expected = float(sum(per_image) / config.batch_size)
    with_patches, without = (run(replace(config, patch_weight=w))[1][0] for w in (0.7, 0.0))
    assert with_patches - without == pytest.approx(0.7 * expected, rel=1e-5)


def test_tokens_of_a_batch_belong_to_its_samples(config: HeadTrainingConfig) -> None:
    data = load_data(config)
    for step in range(6):
        (views,) = data.batch(config, step)
        tokens = data.tokens.batch(config, step)
        torch.testing.assert_close(tokens.whole.mean(dim=1), views[0])


def test_the_patch_term_has_a_centre_of_its_own(config: HeadTrainingConfig) -> None:
    state, _ = run(config)
    patches, classes = state.patches.objective.centre, state.objective.centre
    assert patches.abs().max() > 0
    assert (patches != classes).any()


def test_a_resumed_run_continues_the_patch_term_exactly(
    config: HeadTrainingConfig, tmp_path: Path
) -> None:
    path = tmp_path / "state.pt"
    unbroken, _ = run(
        config, on_save=lambda state: save_state(state, path) if state.iteration == 3 else None
    )
    data = load_data(config)
    resumed = make_state(config, data)
    load_state(resumed, path)
    train(resumed, data, config, on_audit=lambda *_: {}, on_save=lambda _: None, quiet=True)
    for name, value in unbroken.teacher.state_dict().items():
        torch.testing.assert_close(resumed.teacher.state_dict()[name], value, rtol=0, atol=0)


def test_without_tokens_nothing_changes(config: HeadTrainingConfig, tmp_path: Path) -> None:
    plain = tmp_path / "plain.npz"
    np.savez(plain, features=arrays()["features"])
    assert load_data(replace(config, data=str(plain))).tokens is None
    without = run(replace(config, data=str(plain)))[1]
    assert without == run(replace(config, patch_weight=0.0))[1]
    assert without != run(config)[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"token_mask": None}, "holds tokens, masked_tokens, but no token_mask"),
        ({"token_mask": np.ones((SAMPLES, TOKENS))}, "float64 do not fit 24 samples of width 6"),
        ({"tokens": np.ones((SAMPLES, TOKENS, 7), np.float32)}, r"tokens \(24, 5, 7\) float32"),
        ({"masked_tokens": np.ones((SAMPLES, 4, WIDTH), np.float32)}, "do not fit 24 samples"),
        ({"tokens": np.full((SAMPLES, TOKENS, WIDTH), np.nan, np.float32)}, "NaN or infinite"),
    ],
)
def test_tokens_that_do_not_fit_are_refused(
    config: HeadTrainingConfig, change: dict[str, np.ndarray | None], message: str
) -> None:
    changed = {name: value for name, value in (arrays() | change).items() if value is not None}
    np.savez(config.data, **changed)
    with pytest.raises(SourceError, match=message):
        load_data(config)


def test_the_normaliser_is_refused_with_tokens(config: HeadTrainingConfig) -> None:
    with pytest.raises(ParameterError, match="has no von Mises-Fisher normaliser"):
        load_data(replace(config, d=16, vmf=True))
