"""HeadTrainingConfig: one definition behind the YAML and TOML files and the command-line flags."""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from collapse_audit.errors import ParameterError
from collapse_audit.settings import read_settings
from collapse_audit.words import did_you_mean, printable

OBJECTIVES = ("dino", "probability-centring", "sinkhorn", "me-max", "pmsn")
REGULARISERS = ("none", "koleo-proto", "koleo-data", "koleo-both", "decoupled")


def option(
    default: Any,
    text: str,
    *,
    choices: tuple[str, ...] = (),
    low: float = -math.inf,
    high: float | None = None,
    open_low: bool = False,
) -> Any:
    """Declare a setting: its default, its line of help, and the words or numbers it may take."""
    # ``open_low``: low itself is refused too; more than the largest ``high`` is a slip of the pen
    if high is None:
        high = 1e18 if isinstance(default, float) else 2**31 - 1
    metadata = {"help": text, "choices": choices, "low": low, "high": high, "open_low": open_low}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class HeadTrainingConfig:
    """Everything that decides the weights a run ends with.

    The defaults are a compressed schedule on which a baseline head collapses within 1500 steps on
    digits; the row learning rate and row weight decay are larger than DINO's own. Every field is a
    key of the YAML or TOML file and a flag of ``collapse-audit train``.
    """

    data: str = option(
        "digits", "digits, fashion-mnist, or a file of features (.npz, .safetensors)"
    )
    data_root: str | None = option(None, "folder that holds the data set's original files")
    limit: int = option(20000, "largest number of training samples taken", low=2)
    pool: int = option(32, "augmented views precomputed per image", low=2)
    augmentation: float = option(0.8, "strength of the geometric augmentation", low=0, high=4)
    noise: float = option(0.2, "standard deviation of the noise added to every view", low=0)
    views: int = option(2, "views of an image per step", low=2)

    k: int = option(1024, "number of prototypes, K", low=2)
    d: int = option(64, "dimension of the prototypes, D", low=1)
    hidden: int = option(256, "width of the backbone and of the head's hidden layers", low=1)
    init: str | None = option(
        None, "safetensors file of an earlier run: its networks are the start"
    )
    backbone: str = option("small", "small (an MLP), or a timm model for a file of images")
    image_size: int = option(224, "side of global crops, for a timm backbone", low=8)
    local_views: int = option(0, "local crops per image, for a timm backbone", low=0)
    local_size: int = option(96, "side of local crops", low=8)
    freeze_backbone: bool = option(False, "train the head only")

    objective: str = option("sinkhorn", "self-distillation objective", choices=OBJECTIVES)
    student_temperature: float = option(0.1, "temperature of the student", low=0, open_low=True)
    teacher_temperature: float = option(0.04, "temperature of the teacher", low=0, open_low=True)
    centre_momentum: float = option(0.9, "momentum of the centre", low=0, high=1)
    sinkhorn_iterations: int = option(3, "Sinkhorn-Knopp iterations", low=1)
    prior_weight: float = option(1.0, "weight of the ME-MAX or power-law prior term", low=0)
    prior_exponent: float = option(0.25, "exponent of the power-law prior (pmsn)", low=0)
    patch_weight: float = option(
        1.0, "weight of iBOT's patch term, for a file of features that holds tokens", low=0
    )
    vmf: bool = option(False, "let row norms train and add the von Mises-Fisher normaliser")

    regulariser: str = option("none", "what keeps prototypes apart", choices=REGULARISERS)
    weight: float = option(0.1, "weight of the regulariser", low=0)
    forgetting: float = option(0.01, "forgetting rate of the decoupled mixture", low=0, high=1)
    annealing_start: float = option(
        0.1, "inverse temperature the decoupled mixture starts from", low=0, high=1, open_low=True
    )

    iterations: int = option(1500, "training steps", low=1)
    batch_size: int = option(32, "images per step", low=2)
    optimiser: str = option("adamw", "optimiser", choices=("adamw", "sgd"))
    lr: float = option(4e-3, "learning rate after warm-up", low=0, open_low=True)
    prototype_lr_factor: float = option(
        10.0, "learning rate of the rows over that of the rest", low=0
    )
    warmup: int = option(100, "steps of linear warm-up, before cosine decay", low=0)
    weight_decay: float = option(0.04, "weight decay of matrices other than the rows", low=0)
    prototype_weight_decay: float = option(1.0, "weight decay of the rows", low=0)
    clip: float = option(3.0, "largest norm of all gradients together; 0 for none", low=0)
    momentum: float = option(0.99, "momentum of the teacher at the start", low=0, high=1)
    final_momentum: float = option(0.99, "momentum of the teacher at the end", low=0, high=1)

    seed: int = option(0, "seed of everything that is drawn", low=0, high=2**63 - 1)
    device: str = option("auto", "device: auto, cpu, cuda or cuda:N")
    threads: int = option(1, "CPU threads; 0 for all (sums, and so weights, differ)", low=0)
    amp: bool = option(False, "bfloat16 autocast on a CUDA device")
    compile: bool = option(False, "torch.compile the student")
    deterministic: bool = option(False, "refuse operations without a reproducible result")
    audit_every: int = option(100, "steps between audits in the log", low=1)
    save_every: int = option(250, "steps between states that a resumed run continues from", low=1)
    keep_every: int | None = option(
        None, "steps between heads that are kept, as checkpoint_stepN.safetensors", low=1
    )

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):
            check_setting(entry, getattr(self, entry.name), entry.name)
        if self.vmf and self.d < 16:
            raise ParameterError(
                f"vmf needs d of at least 16, got {self.d}.", hint="Give `d=16` or more."
            )

    @classmethod
    def from_mapping(cls, values: dict[str, Any], *, source: str = "configuration") -> typing.Self:
        """Build a configuration from plain values, as read from a file or a command line.

        Args:
            values: Setting name to value; names may be written with ``-`` as flags are.
            source: What to call the origin in an error.

        Returns:
            The configuration, with defaults for what is not given.

        Raises:
            ParameterError: If a name is unknown, or a value of the wrong type or out of range.
        """
        names = {entry.name: entry for entry in dataclasses.fields(cls)}
        known = {}
        for key, value in values.items():
            name = str(key).replace("-", "_")
            if name not in names:
                raise ParameterError(
                    f"{source}: unknown setting {_shown(key)}.",
                    hint=did_you_mean(name, names) or f"Settings: {', '.join(names)}.",
                )
            check_setting(names[name], value, f"{source}: {key}")
            known[name] = value
        return cls(**known)

    @classmethod
    def from_file(cls, path: Path) -> typing.Self:
        """Read a YAML or TOML file of settings.

        Args:
            path: A file ending in .yaml, .yml or .toml. In the ``config.yaml`` of a run folder the
                settings are those under ``config``.

        Returns:
            The configuration.

        Raises:
            SourceError: If the file cannot be read.
            ParameterError: If the file is not a mapping of settings.
        """
        values = read_settings(path)
        if isinstance(values, dict):
            values = values.get("config", values)
        if not isinstance(values, dict):
            raise ParameterError(
                f"{path}: holds {type(values).__name__}, not settings.",
                hint="Write one 'name: value' on each line.",
            )
        return cls.from_mapping(values, source=str(path))

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain values.

        Returns:
            Setting name to value, in the order of definition.
        """
        return dataclasses.asdict(self)


def setting_type(entry: dataclasses.Field[Any]) -> tuple[type, bool]:
    """Type of a setting (str, int, float or bool), and whether it may be ``None``."""
    words = str(entry.type).split(" | ")
    kinds = {"str": str, "int": int, "float": float, "bool": bool}
    return kinds[words[0]], "None" in words


def check_setting(entry: dataclasses.Field[Any], value: object, name: str) -> None:
    """Refuse a value of the wrong type or outside the range its field declares; name it so."""
    kind, optional = setting_type(entry)
    if value is None and optional:
        return
    # YAML reads 1e-3 as a string and 1 as an int: the field's own type decides, booleans aside
    accepted = (int, float) if kind is float else (kind,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise ParameterError(
            f"{name} must be {kind.__name__}, got {_shown(value)}.",
            hint="Write 1.0e-3, not 1e-3, in YAML." if kind is float else "",
        )
    rule = entry.metadata
    if rule["choices"] and value not in rule["choices"]:
        raise ParameterError(
            f"{name}: no {_shown(value)}.",
            hint=did_you_mean(str(value), rule["choices"])
            or f"Choose from {', '.join(rule['choices'])}.",
        )
    if isinstance(value, str) and re.search("[\0\ud800-\udfff]", value):
        raise ParameterError(f"{name}: {_shown(value)} cannot be a name.")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        low, high = rule["low"], rule["high"]
        bound = "above" if rule["open_low"] else "at least"
        if not (low < value if rule["open_low"] else low <= value):
            raise ParameterError(f"{name} must be {bound} {low:g}, got {_shown(value)}.")
        if value > high:
            raise ParameterError(f"{name} must be at most {high:g}, got {_shown(value)}.")


def _shown(value: object) -> str:
    """A value for people; what a file can hold may be long."""
    try:
        return printable(repr(value), 80)
    except ValueError:  # Python writes no integer of more digits
        return "a number of more than 4,300 digits"
