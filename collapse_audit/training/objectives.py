"""Self-distillation objectives: what the student is asked to predict, and what keeps it honest.

All take the same arguments, logits of several views, and differ in how the teacher's targets are
spread over the prototypes.
"""

from __future__ import annotations

import math
from itertools import product

import torch
from torch import Tensor, nn

from collapse_audit.mlcd.vmf import vmf_log_normaliser
from collapse_audit.training.config import HeadTrainingConfig


class Objective(nn.Module):
    """Cross-entropy between the teacher's targets and the student, over pairs of other views.

    Subclasses say how targets are made from logits and may add a penalty on the student's mean
    prediction. Running statistics are buffers, so that they are saved and moved with the module.
    """

    centre: Tensor  # running, of the teacher (k); zero where the method has none

    def __init__(self, config: HeadTrainingConfig) -> None:
        super().__init__()
        self.config = config
        self.student_temperature = config.student_temperature
        self.teacher_temperature = config.teacher_temperature
        self.register_buffer("centre", torch.zeros(config.k))

    @property
    def logit_centre(self) -> Tensor | None:
        """The centre in units of logits, as DINO's checkpoints store it; none by default."""
        return None

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        *,
        student_kappa: Tensor | None = None,
        teacher_kappa: Tensor | None = None,
        d: int = 0,
    ) -> Tensor:
        """Loss of one batch in nats, from inner products with the prototypes (views x n x k)."""
        # The teacher may have fewer views (the global ones); its view i is the crop of the
        # student's view i. With row norms kappa (k) the von Mises-Fisher normaliser of DINO-vMF is
        # added, which needs the dimension d.
        student = _scores(student_logits, self.student_temperature, student_kappa, d)
        with torch.no_grad():
            teacher = _scores(teacher_logits, self.teacher_temperature, teacher_kappa, d)
            targets = self.targets(teacher)
        log_probability = student.log_softmax(dim=-1)
        return cross_view_entropy(log_probability, targets) + self.penalty(log_probability)

    def targets(self, teacher: Tensor) -> Tensor:
        """What the student shall predict, from logits over the temperature (views x n x k)."""
        # may update running statistics
        return teacher.softmax(dim=-1)

    def penalty(self, log_probability: Tensor) -> Tensor:
        """Term on the student's log-probabilities (views x n x k) alone; zero by default."""
        return log_probability.new_zeros(())

    def _move_centre(self, mean: Tensor) -> None:
        self.centre.lerp_(mean.to(self.centre.dtype), 1 - self.config.centre_momentum)


class LogitCentring(Objective):
    """DINO (Caron et al. 2021): the mean of the teacher's logits is subtracted before sharpening.

    The centre is kept in units of logits, as DINO's checkpoints store it, and is updated after use.
    """

    @property
    def logit_centre(self) -> Tensor:
        """The centre, which is in these units."""
        return self.centre

    def targets(self, teacher: Tensor) -> Tensor:
        """Centred and sharpened targets."""
        targets = (teacher - self.centre / self.teacher_temperature).softmax(dim=-1)
        self._move_centre(teacher.mean(dim=(0, 1)) * self.teacher_temperature)
        return targets


class ProbabilityCentring(Objective):
    """DINO-vMF (Govindarajan et al. 2023): the centre is the log of the mean probability.

    The paper's name for it; the placement of the temperature is our reading: the centre is
    subtracted from the logits over the temperature, and is updated after use.
    """

    @property
    def logit_centre(self) -> Tensor:
        """What is subtracted before the temperature to the same effect."""
        return self.centre * self.teacher_temperature

    def targets(self, teacher: Tensor) -> Tensor:
        """Centred and sharpened targets."""
        targets = (teacher - self.centre).softmax(dim=-1)
        self._move_centre(_log_mean(teacher.log_softmax(dim=-1)))
        return targets


class SinkhornKnopp(Objective):
    """SwAV, DINOv2: targets of the batch are balanced over the prototypes by Sinkhorn-Knopp."""

    def targets(self, teacher: Tensor) -> Tensor:
        """Balanced targets of all views together."""
        plan = sinkhorn_knopp(teacher.flatten(0, 1), self.config.sinkhorn_iterations)
        return plan.view_as(teacher)


class MeanEntropyMaximisation(Objective):
    """MSN (Assran et al. 2022): adds KL(p || U) = log K - H(p) of the mean prediction p."""

    log_prior: Tensor

    def __init__(self, config: HeadTrainingConfig) -> None:
        super().__init__(config)
        self.register_buffer("log_prior", self.prior(config).log(), persistent=False)

    def prior(self, config: HeadTrainingConfig) -> Tensor:
        """Probabilities (k, float64) that the mean prediction is pulled to: uniform."""
        return torch.full((config.k,), 1 / config.k, dtype=torch.float64)

    def penalty(self, log_probability: Tensor) -> Tensor:
        """KL(p || prior) of the mean prediction in nats, weighted."""
        log_mean = _log_mean(log_probability)
        prior = self.log_prior.to(log_mean.dtype)
        return self.config.prior_weight * (log_mean.exp() * (log_mean - prior)).sum()


class PowerLawPrior(MeanEntropyMaximisation):
    """PMSN (Assran et al. 2023): KL(p || prior) with prior_k ~ k^-exponent, 0.25 by default."""

    def prior(self, config: HeadTrainingConfig) -> Tensor:
        """Power law over the prototypes in index order (k, float64)."""
        rank = torch.arange(1, config.k + 1, dtype=torch.float64)
        return rank.pow(-config.prior_exponent) / rank.pow(-config.prior_exponent).sum()


class PatchCrossEntropy(nn.Module):
    """iBOT (Zhou et al. 2022): the student predicts the teacher's targets of masked tokens."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        # One of its own, as iBOT keeps a second centre for patches; targets are those of all
        # tokens, and the centre their mean, as in iBOT.
        self.objective = objective

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, mask: Tensor) -> Tensor:
        """Loss in nats (of n x tokens x k): mean over masked tokens, then over images."""
        # The student sees the masked image, the teacher the whole one. An image without a masked
        # token (mask: n x tokens, bool) counts as zero.
        with torch.no_grad():
            targets = self.objective.targets(teacher_logits / self.objective.teacher_temperature)
        log_probability = (student_logits / self.objective.student_temperature).log_softmax(-1)
        entropy = -(targets * log_probability).sum(dim=-1) * mask
        return (entropy.sum(dim=1) / mask.sum(dim=1).clamp_min(1)).mean()


def cross_view_entropy(log_probability: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy (nats) over all pairs of a teacher's view and another of the student's."""
    pairs = product(range(len(targets)), range(len(log_probability)))
    terms = [-(targets[t] * log_probability[s]).sum(dim=-1).mean() for t, s in pairs if t != s]
    return torch.stack(terms).mean()


def sinkhorn_knopp(logits: Tensor, iterations: int) -> Tensor:
    """Scale exp(logits) (n x k) so that prototypes share the samples evenly; each row sums to 1."""
    # In log space, so that no temperature overflows (``exp`` does, beyond logits of 88). SwAV and
    # DINOv2 take 3 iterations; the marginals over prototypes are met in the limit.
    log_plan = logits
    for _ in range(iterations):
        log_plan = log_plan - log_plan.logsumexp(dim=0, keepdim=True)
        log_plan = log_plan - log_plan.logsumexp(dim=1, keepdim=True)
    return log_plan.exp()


def _scores(logits: Tensor, temperature: float, kappa: Tensor | None, d: int) -> Tensor:
    """Logits (... x k) over the temperature, in float32 at least."""
    # with row norms (kappa, k) the von Mises-Fisher normaliser is added, for dimension d
    exact = logits if logits.dtype == torch.float64 else logits.float()
    if kappa is None:
        return exact / temperature
    return exact / temperature + vmf_log_normaliser(kappa / temperature, d)


def _log_mean(log_probability: Tensor) -> Tensor:
    """Log of the mean probability (k) over views and samples; in logs no mean underflows to 0."""
    flat = log_probability.flatten(0, 1)
    return flat.logsumexp(dim=0) - math.log(len(flat))


_CLASSES: dict[str, type[Objective]] = {
    "dino": LogitCentring,
    "probability-centring": ProbabilityCentring,
    "sinkhorn": SinkhornKnopp,
    "me-max": MeanEntropyMaximisation,
    "pmsn": PowerLawPrior,
}


def make_objective(config: HeadTrainingConfig) -> Objective:
    """The objective a configuration asks for, its running statistics at zero."""
    return _CLASSES[config.objective](config)
