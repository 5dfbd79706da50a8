"""Self-distillation objectives: what the student is asked to predict, and what keeps it honest.

All take the same arguments, logits of several views, and differ in how the teacher's targets are
spread over the prototypes.
"""

from __future__ import annotations

import math
from itertools import product
from typing import ClassVar

import torch
from torch import Tensor, nn

from collapse_audit.training.config import HeadTrainingConfig
from collapse_audit.training.sinkhorn import sinkhorn_knopp
from collapse_audit.training.vmf import scores


class Objective(nn.Module):
    """Cross-entropy between the teacher's targets and the student, over pairs of other views.

    Subclasses say how targets are made from logits and may add a penalty on the student's mean
    prediction. Running statistics are buffers, so that they are saved and moved with the module.

    Attributes:
        centre: Running centre of the teacher (k); zero where the method has none.
        student_temperature: Divides the student's logits.
        teacher_temperature: Divides the teacher's logits.
    """

    centre: Tensor
    # how the centre is applied, for those who evaluate the head later
    centre_rule: ClassVar[str] = "none"

    def __init__(self, config: HeadTrainingConfig) -> None:
        super().__init__()
        self.student_temperature = config.student_temperature
        self.teacher_temperature = config.teacher_temperature
        self.register_buffer("centre", torch.zeros(config.k))

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        *,
        student_kappa: Tensor | None = None,
        teacher_kappa: Tensor | None = None,
        d: int = 0,
    ) -> Tensor:
        """Loss of one batch.

        Args:
            student_logits: Inner products with the prototypes (views x n x k).
            teacher_logits: The same for the teacher; may have fewer views (the global ones), and
                view i is the same crop as the student's view i.
            student_kappa: Row norms (k), to add the von Mises-Fisher normaliser of DINO-vMF.
            teacher_kappa: The same for the teacher.
            d: Dimension of the prototypes; used with the row norms only.

        Returns:
            Scalar loss in nats.
        """
        student = scores(student_logits, self.student_temperature, student_kappa, d)
        with torch.no_grad():
            teacher = scores(teacher_logits, self.teacher_temperature, teacher_kappa, d)
            targets = self.targets(teacher)
        log_probability = student.log_softmax(dim=-1)
        return cross_view_entropy(log_probability, targets) + self.penalty(log_probability)

    def targets(self, teacher: Tensor) -> Tensor:
        """What the student shall predict; may update running statistics.

        Args:
            teacher: Logits over the temperature (views x n x k).

        Returns:
            Probabilities of the same shape.
        """
        return teacher.softmax(dim=-1)

    def penalty(self, log_probability: Tensor) -> Tensor:
        """Term on the student alone.

        Args:
            log_probability: Of the student (views x n x k).

        Returns:
            Scalar; zero unless a subclass says otherwise.
        """
        return log_probability.new_zeros(())


class LogitCentring(Objective):
    """DINO (Caron et al. 2021): the mean of the teacher's logits is subtracted before sharpening.

    The centre is kept in units of logits, as DINO's checkpoints store it, and is updated after use.
    """

    centre_rule = "logits"

    def __init__(self, config: HeadTrainingConfig) -> None:
        super().__init__(config)
        self.momentum = config.centre_momentum

    def targets(self, teacher: Tensor) -> Tensor:
        """Centred and sharpened targets; see :meth:`Objective.targets`.

        Args:
            teacher: Logits over the temperature (views x n x k).

        Returns:
            Probabilities of the same shape.
        """
        targets = (teacher - self.centre / self.teacher_temperature).softmax(dim=-1)
        mean = teacher.mean(dim=(0, 1)) * self.teacher_temperature
        self.centre.lerp_(mean.to(self.centre.dtype), 1 - self.momentum)
        return targets


class ProbabilityCentring(Objective):
    """DINO-vMF (Govindarajan et al. 2023): the centre is the log of the mean probability.

    The paper's name for it; the placement of the temperature is our reading: the centre is
    subtracted from the logits over the temperature, and is updated after use.
    """

    centre_rule = "log-probabilities"

    def __init__(self, config: HeadTrainingConfig) -> None:
        super().__init__(config)
        self.momentum = config.centre_momentum

    def targets(self, teacher: Tensor) -> Tensor:
        """Centred and sharpened targets; see :meth:`Objective.targets`.

        Args:
            teacher: Logits over the temperature (views x n x k).

        Returns:
            Probabilities of the same shape.
        """
        targets = (teacher - self.centre).softmax(dim=-1)
        flat = teacher.flatten(0, 1).log_softmax(dim=-1)
        log_mean = flat.logsumexp(dim=0) - math.log(len(flat))  # in logs: no mean underflows to 0
        self.centre.lerp_(log_mean.to(self.centre.dtype), 1 - self.momentum)
        return targets


class SinkhornKnopp(Objective):
    """SwAV, DINOv2: targets of the batch are balanced over the prototypes by Sinkhorn-Knopp."""

    def __init__(self, config: HeadTrainingConfig) -> None:
        super().__init__(config)
        self.iterations = config.sinkhorn_iterations

    def targets(self, teacher: Tensor) -> Tensor:
        """Balanced targets of all views together; see :meth:`Objective.targets`.

        Args:
            teacher: Logits over the temperature (views x n x k).

        Returns:
            Probabilities of the same shape.
        """
        return sinkhorn_knopp(teacher.flatten(0, 1), self.iterations).view_as(teacher)


class MeanEntropyMaximisation(Objective):
    """MSN (Assran et al. 2022): adds KL(p || U) = log K - H(p) of the mean prediction p."""

    def __init__(self, config: HeadTrainingConfig) -> None:
        super().__init__(config)
        self.weight = config.prior_weight
        self.register_buffer("log_prior", self.prior(config).log(), persistent=False)

    log_prior: Tensor

    def prior(self, config: HeadTrainingConfig) -> Tensor:
        """Distribution over the prototypes that the mean prediction is pulled to.

        Args:
            config: For the number of prototypes and the exponent.

        Returns:
            Probabilities (k, float64).
        """
        return torch.full((config.k,), 1 / config.k, dtype=torch.float64)

    def penalty(self, log_probability: Tensor) -> Tensor:
        """KL(p || prior) of the mean prediction, weighted.

        Args:
            log_probability: Of the student (views x n x k).

        Returns:
            Scalar in nats.
        """
        flat = log_probability.flatten(0, 1)
        log_mean = flat.logsumexp(dim=0) - math.log(len(flat))
        prior = self.log_prior.to(log_mean.dtype)
        return self.weight * (log_mean.exp() * (log_mean - prior)).sum()


class PowerLawPrior(MeanEntropyMaximisation):
    """PMSN (Assran et al. 2023): KL(p || prior) with prior_k ~ k^-exponent, 0.25 by default."""

    def prior(self, config: HeadTrainingConfig) -> Tensor:
        """Power law over the prototypes in index order.

        Args:
            config: For the number of prototypes and the exponent.

        Returns:
            Probabilities (k, float64).
        """
        rank = torch.arange(1, config.k + 1, dtype=torch.float64)
        return rank.pow(-config.prior_exponent) / rank.pow(-config.prior_exponent).sum()


class PatchCrossEntropy(nn.Module):
    """iBOT (Zhou et al. 2022): the student predicts the teacher's targets of masked patch tokens.

    Args:
        objective: Makes the targets; give it an instance of its own, as iBOT keeps a second centre
            for patches. Targets are those of all tokens, and the centre their mean, as in iBOT.
    """

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, mask: Tensor) -> Tensor:
        """Loss of one view: mean over the masked tokens of an image, then over images.

        Args:
            student_logits: Of the masked image's tokens (n x tokens x k).
            teacher_logits: Of the whole image's tokens (n x tokens x k).
            mask: Which tokens the student did not see (n x tokens, bool).

        Returns:
            Scalar loss in nats; images without a masked token count as zero.
        """
        with torch.no_grad():
            targets = self.objective.targets(teacher_logits / self.objective.teacher_temperature)
        log_probability = (student_logits / self.objective.student_temperature).log_softmax(-1)
        entropy = -(targets * log_probability).sum(dim=-1) * mask
        return (entropy.sum(dim=1) / mask.sum(dim=1).clamp_min(1)).mean()


def cross_view_entropy(log_probability: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy over all pairs of a teacher's view and another of the student's.

    Args:
        log_probability: Of the student (views x n x k).
        targets: Of the teacher (at most as many views x n x k).

    Returns:
        Scalar in nats.
    """
    pairs = product(range(len(targets)), range(len(log_probability)))
    terms = [-(targets[t] * log_probability[s]).sum(dim=-1).mean() for t, s in pairs if t != s]
    return torch.stack(terms).mean()


_CLASSES: dict[str, type[Objective]] = {
    "dino": LogitCentring,
    "probability-centring": ProbabilityCentring,
    "sinkhorn": SinkhornKnopp,
    "me-max": MeanEntropyMaximisation,
    "pmsn": PowerLawPrior,
}


def make_objective(config: HeadTrainingConfig) -> Objective:
    """The objective a configuration asks for.

    Args:
        config: Names it and holds its settings.

    Returns:
        The objective, its running statistics at zero.
    """
    return _CLASSES[config.objective](config)
