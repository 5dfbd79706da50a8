"""What the code of a method does between features and probabilities, beyond its tensors."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collapse_audit.prototypes import Branch

# What this package, DINO and those after it, and Mugs call a temperature in their options.
_OPTIONS = ("{}_temperature", "{}_temp", "group_{}_temp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a head is run. What no source states is DINO's, but for the temperatures."""

    # of the teacher, or the single network, at the end of training
    teacher_temperature: float | None = None
    student_temperature: float | None = None
    # whether the teacher's logits are centred, so that a centre missing from the file should be
    # estimated
    centring: bool = False
    use_norms: bool = True  # whether logits carry the norms of the prototypes
    normalize_features: bool = True  # scaled to unit norm before the prototypes
    vmf: bool = False  # the von Mises-Fisher normaliser is added to the logits over the temperature
    activation: Literal["gelu", "relu"] = "gelu"  # between the linear layers of the projection head
    final_activation: bool = False  # whether it follows the last of them too
    preprocessing: str = "in1k_bicubic"  # name of the evaluation profile
    # for each field that something states, what: a line of the official code, mostly
    sources: Mapping[str, str] = field(default_factory=dict, hash=False, metadata={"derived": True})

    def temperature(self, branch: "Branch | None") -> float | None:
        """Temperature of a branch; a single network has the teacher's; ``None`` if unknown."""
        return self.student_temperature if branch == "student" else self.teacher_temperature

    def changed_by(self, other: "Recipe") -> "Recipe":
        """The same with what another one states, also what it states to be unknown."""
        stated: dict[str, Any] = {name: getattr(other, name) for name in other.sources}
        return replace(self, **stated, sources={**self.sources, **other.sources})

    def told_by(self, options: Mapping[str, Any], *, source: str, patches: bool) -> "Recipe":
        """The same with what a run has written down: training options by name, from this source."""
        told: dict[str, Any] = {}
        for branch in ("teacher", "student"):
            of_patches = (f"{branch}_patch_temp",) if patches else ()  # iBOT
            names = (*of_patches, *(name.format(branch) for name in _OPTIONS))
            value: Any = next((options[name] for name in names if name in options), None)
            is_number = isinstance(value, float | int) and not isinstance(value, bool)
            if is_number and 0 < value < math.inf:
                told[f"{branch}_temperature"] = float(value)
        switches = {name: options.get(name) for name in ("centring", "vmf")}
        told |= {name: value for name, value in switches.items() if isinstance(value, bool)}
        return self.changed_by(Recipe(**told, sources=dict.fromkeys(told, source)))
