"""The training loop: student, teacher, schedules, and a stop when the loss diverges."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from collapse_audit.devices import pick_device
from collapse_audit.training.config import HeadTrainingConfig
from collapse_audit.training.data import Data
from collapse_audit.training.heads import Network, make_network
from collapse_audit.training.objectives import Objective, PatchCrossEntropy, make_objective
from collapse_audit.training.regularisers import Regulariser, make_regulariser
from collapse_audit.training.tokens import PatchTokens


@dataclass(slots=True, eq=False)
class TrainingState:
    """All that changes during a run; saving it and loading it continues the run exactly."""

    student: Network  # trained by gradients
    teacher: Network  # moving average of the student
    objective: Objective  # holds the centre
    patches: PatchCrossEntropy  # with a centre of its own; idle without patch tokens
    regulariser: Regulariser  # holds the mixture of decoupled prototypes
    optimiser: torch.optim.Optimizer
    iteration: int = 0  # steps done
    # of the steps since the last record in the log: objective with patch term, and regulariser
    losses: list[tuple[float, float]] = field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers of the run, to be saved."""
        parts = {name: getattr(self, name).state_dict() for name in _PARTS}
        return parts | {"iteration": self.iteration, "losses": list(self.losses)}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` of a run of the same configuration gave."""
        for name in _PARTS:
            getattr(self, name).load_state_dict(saved[name])
        self.iteration = int(saved["iteration"])
        self.losses = list(saved["losses"])


_PARTS = ("student", "teacher", "objective", "patches", "regulariser", "optimiser")


class DivergedError(Exception):
    """The loss is no longer finite; the state before the step is not to be trusted either."""


def make_state(config: HeadTrainingConfig, data: Data) -> TrainingState:
    """The state before the first step, on the configured device; the seed decides the weights."""
    device = pick_device(config.device)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        student = make_network(config, data.width, images=data.images)
    student.to(device)
    return state_from(student, config, data)


def state_from(student: Network, config: HeadTrainingConfig, data: Data) -> TrainingState:
    """The state before the first step of a student, on its device; the teacher is a copy of it."""
    device = student.prototypes.device
    student.backbone.requires_grad_(not config.freeze_backbone)
    teacher = copy.deepcopy(student).requires_grad_(False)
    regulariser = make_regulariser(config).to(device)
    regulariser.prepare(student, data.sample(config.k, config).to(device))
    objective = make_objective(config).to(device)
    patches = PatchCrossEntropy(make_objective(config)).to(device)
    optimiser = _optimiser(student, config)
    return TrainingState(student, teacher, objective, patches, regulariser, optimiser)


def train(
    state: TrainingState,
    data: Data,
    config: HeadTrainingConfig,
    *,
    on_audit: Callable[[TrainingState, dict[str, float]], dict[str, float]],
    on_save: Callable[[TrainingState], None],
    on_keep: Callable[[TrainingState], None] = lambda _: None,
    quiet: bool = False,
) -> None:
    """Train until the configured number of steps is done."""
    # on_audit: every audit_every steps and at the end, with the mean losses since the last call;
    # what it returns is shown beside the bar. on_save: every save_every steps and at the end, with
    # finite weights; on_keep: every keep_every steps. There is no bar where stderr is no terminal.
    forward = torch.compile(state.student) if config.compile else state.student
    device = state.student.prototypes.device
    bar = tqdm(
        total=config.iterations,
        initial=state.iteration,
        desc="train",
        unit="step",
        disable=True if quiet else None,
    )
    with bar, _reproducibly(config):
        while state.iteration < config.iterations:
            views = [part.to(device) for part in data.batch(config, state.iteration)]
            tokens = data.tokens and data.tokens.batch(config, state.iteration).to(device)
            losses = _step(state, forward, views, tokens, config)
            if not math.isfinite(sum(losses)):
                raise DivergedError(f"loss {sum(losses)} at step {state.iteration}")
            state.losses.append(losses)
            state.iteration += 1
            bar.update()
            last = state.iteration == config.iterations
            if last or state.iteration % config.audit_every == 0:
                shown = on_audit(state, _mean_losses(state.losses))
                bar.set_postfix({name: f"{value:.4g}" for name, value in shown.items()})
                state.losses.clear()
            if last or state.iteration % config.save_every == 0:
                on_save(state)
            if config.keep_every and state.iteration % config.keep_every == 0:
                on_keep(state)


def _step(
    state: TrainingState,
    forward: Callable[..., Any],
    views: list[Tensor],
    tokens: PatchTokens | None,
    config: HeadTrainingConfig,
) -> tuple[float, float]:
    """One optimiser step and one step of the teacher; neither happens if the loss is not finite."""
    done = state.iteration / config.iterations
    _schedule(state, config)
    whole = views[0]  # the teacher sees global views only
    with torch.autocast(whole.device.type, torch.bfloat16, enabled=config.amp and whole.is_cuda):
        with torch.no_grad():
            bottleneck = state.teacher.head.bottleneck(state.teacher.backbone(whole))
            state.regulariser.adapt(bottleneck, state.student, state.teacher, done)
            teacher_logits = state.teacher.head.last_layer(bottleneck)
        outputs = [forward(part) for part in views]
        patches = 0.0 if tokens is None else config.patch_weight * _patch_loss(state, tokens)
    features, student_logits = outputs[0][0], torch.cat([output[2] for output in outputs])
    kappa = _norms(state) if config.vmf else {}
    objective = state.objective(student_logits, teacher_logits, d=config.d, **kappa) + patches
    penalty = state.regulariser(features, state.student.prototypes)
    losses = (objective.item(), penalty.item())
    if not math.isfinite(sum(losses)):
        return losses
    state.optimiser.zero_grad()
    (objective + penalty).backward()
    if config.clip:
        nn.utils.clip_grad_norm_(state.student.parameters(), config.clip)
    state.optimiser.step()
    _move_teacher(state, _cosine(config.momentum, config.final_momentum, done))
    return losses


def _patch_loss(state: TrainingState, tokens: PatchTokens) -> Tensor:
    """The head on the masked image's tokens, against the teacher's on the whole image's."""
    with torch.no_grad():
        teacher_logits = state.teacher(tokens.whole)[2]
    loss: Tensor = state.patches(state.student(tokens.masked)[2], teacher_logits, tokens.mask)
    return loss


def _norms(state: TrainingState) -> dict[str, Tensor]:
    """Row norms of both branches, as the von Mises-Fisher normaliser takes them."""
    layers = {"student_kappa": state.student, "teacher_kappa": state.teacher}
    return {name: net.head.last_layer.weight_g.abs().squeeze(1) for name, net in layers.items()}


@torch.no_grad()
def _move_teacher(state: TrainingState, momentum: float) -> None:
    for mine, theirs in zip(state.teacher.parameters(), state.student.parameters(), strict=True):
        mine.lerp_(theirs, 1 - momentum)


def _optimiser(student: Network, config: HeadTrainingConfig) -> torch.optim.Optimizer:
    """Three groups: rows, other matrices, and vectors, which are not decayed (as in DINO)."""
    rows = [student.prototypes]
    rest = [p for p in student.parameters() if p is not student.prototypes and p.requires_grad]
    groups = [
        {"params": rows, "factor": config.prototype_lr_factor,
         "weight_decay": config.prototype_weight_decay},
        {"params": [p for p in rest if p.ndim > 1], "factor": 1.0,
         "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.ndim <= 1], "factor": 1.0, "weight_decay": 0.0},
    ]  # fmt: skip
    if config.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9)
    return torch.optim.AdamW(groups, lr=config.lr)


def _schedule(state: TrainingState, config: HeadTrainingConfig) -> None:
    """Linear warm-up, then half a cosine down to zero."""
    step = state.iteration
    if step < config.warmup:
        rate = config.lr * (step + 1) / config.warmup
    else:
        rest = max(1, config.iterations - config.warmup)
        rate = _cosine(config.lr, 0.0, (step - config.warmup) / rest)
    for group in state.optimiser.param_groups:
        group["lr"] = rate * group["factor"]


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * done))


def _mean_losses(losses: list[tuple[float, float]]) -> dict[str, float]:
    objective, regulariser = (math.fsum(part) / len(losses) for part in zip(*losses, strict=True))
    return {"loss": objective + regulariser, "objective": objective, "regulariser": regulariser}


@contextmanager
def _reproducibly(config: HeadTrainingConfig) -> Iterator[None]:
    """Threads and determinism of the configuration; the caller's are restored."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(config.deterministic or strict)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)
