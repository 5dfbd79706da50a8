"""Objects that training code puts beside the weights; none of them may cost the audit.

Classes of packages that are not installed are stood in for by empty ones of the same name: a
pickle holds a class by its name only.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import functools
import logging
import pathlib
import re
import sys
import types
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from tests.planted import dino, noise


class _Reduced:
    """Pickled by a call of its class with arguments, and then a state."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __reduce__(self) -> Any:
        return type(self), self.arguments, {"extra": noise(4, 4)}


class _WithSlots:
    __slots__ = ("a", "b")


@contextmanager
def _stand_in(dotted: str, *bases: type) -> Iterator[Any]:
    """A class of another package, for as long as it takes to pickle one of it."""
    module, _, name = dotted.rpartition(".")
    cls: Any = (
        enum.Enum(name, {"FITTING": "fit"}, module=module)
        if enum.Enum in bases
        else type(name, bases or (types.SimpleNamespace,), {"__module__": module})
    )
    parts = module.split(".")
    names = [".".join(parts[:i]) for i in range(1, len(parts) + 1)]
    before = {name: sys.modules[name] for name in names if name in sys.modules}
    sys.modules |= {name: types.ModuleType(name) for name in names}
    setattr(sys.modules[module], name, cls)
    try:
        yield cls
    finally:
        for name in names:
            del sys.modules[name]
        sys.modules |= before


def _set(target: Any, **attributes: Any) -> Any:
    for name, value in attributes.items():
        setattr(target, name, value)
    return target


def _filled(cls: Any) -> Any:
    return cls(lr=0.1, betas=(0.9, 0.95), nested={"a": [1, None]}, buffer=noise(3, 3))


def _mapping(cls: Any) -> Any:
    return cls({"lr": 0.1, "crops": [2, 8], "nested": {"a": noise(2, 2)}})


def _member(cls: Any) -> Any:
    return cls("fit")


Foreign = tuple[tuple[type, ...], Callable[[Any], Any]]
FOREIGN: dict[str, Foreign] = {
    "omegaconf.dictconfig.DictConfig": ((), _filled),
    "omegaconf.listconfig.ListConfig": ((), _filled),
    "lightning.fabric.utilities.data.AttributeDict": ((dict,), _mapping),
    "pytorch_lightning.utilities.parsing.AttributeDict": ((dict,), _mapping),
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint": ((), _filled),
    "pytorch_lightning.trainer.states.TrainerFn": ((enum.Enum,), _member),
    "mmengine.logging.history_buffer.HistoryBuffer": ((), _filled),
    "mmengine.config.config.ConfigDict": ((dict,), _mapping),
    "yacs.config.CfgNode": ((dict,), _mapping),
    "fvcore.common.config.CfgNode": ((dict,), _mapping),
    "easydict.EasyDict": ((dict,), _mapping),
    "ml_collections.config_dict.config_dict.ConfigDict": ((), _filled),
    "addict.addict.Dict": ((dict,), _mapping),
    "transformers.training_args.TrainingArguments": ((), _filled),
    "accelerate.utils.dataclasses.DistributedType": ((enum.Enum,), _member),
    "vissl.utils.hydra_config.AttrDict": ((dict,), _mapping),
    "apex.amp.scaler.LossScaler": ((), _filled),
    "some_lab.train.Config": ((_Reduced,), lambda cls: cls(1, "two")),
    "some_lab.train.Meter": ((list,), lambda cls: cls([0.1, 0.2, noise(2, 2)])),
    "some_lab.train.Slots": ((_WithSlots,), lambda cls: _set(cls(), a=1, b=noise(2, 2))),
}


def _recursive() -> list[Any]:
    items: list[Any] = [1]
    items.append(items)
    return items


def _scheduler() -> Any:
    optimiser = torch.optim.SGD([torch.nn.Parameter(noise(2, 2))], lr=0.1)
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 10)


class _Colour(enum.Enum):
    RED = 1


INSTALLED: dict[str, Callable[[], Any]] = {
    "enum": lambda: _Colour.RED,
    "flag": lambda: re.IGNORECASE | re.MULTILINE,
    "partial": lambda: functools.partial(torch.nn.functional.gelu, approximate="tanh"),
    "partial of a partial": lambda: functools.partial(functools.partial(dict, a=1), b=2),
    "bound method": lambda: collections.OrderedDict(a=1).get,
    "function": lambda: torch.nn.functional.softmax,
    "class": lambda: torch.optim.AdamW,
    "datetime with a zone": lambda: datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC),
    "date and time": lambda: (datetime.date(2025, 1, 1), datetime.time(1), datetime.timedelta(3)),
    "path": lambda: pathlib.PurePosixPath("runs/dino"),
    "path of Windows": lambda: pathlib.PureWindowsPath("C:/runs/dino"),
    "uuid": lambda: uuid.UUID(int=5),
    "decimal and complex": lambda: (decimal.Decimal("0.1"), 1 + 2j, 3**80, -1.5),
    "pattern": lambda: re.compile("blocks.*weight"),
    "logger": lambda: logging.getLogger("dino"),
    "namespace": lambda: types.SimpleNamespace(a=1, b=noise(2, 2)),
    "sets": lambda: ({1, "a"}, frozenset({(2, 3)}), range(3), slice(1, 2), ..., NotImplemented),
    "bytes": lambda: (b"abc", bytearray(b"abc")),
    "collections": lambda: (
        collections.defaultdict(list, a=[1]),
        collections.Counter("aab"),
        collections.deque([1, 2], maxlen=3),
        collections.ChainMap({"a": 1}),
    ),
    "recursive": _recursive,
    "numpy scalars": lambda: (np.float64(0.1), np.int64(3), np.bool_(True), np.datetime64("2025")),
    "numpy arrays": lambda: (np.arange(3), np.array(["a"]), np.array([{}, None], dtype=object)),
    "numpy records": lambda: np.zeros(3, dtype=[("epoch", "i4"), ("loss", "f8")]),
    "numpy random state": lambda: np.random.RandomState(0),
    "numpy generator": lambda: np.random.default_rng(0),
    "numpy state tuple": lambda: np.random.RandomState(0).get_state(),
    "table": lambda: pd.DataFrame({"epoch": [1, 2], "loss": [0.5, 0.25], "note": ["a", None]}),
    "torch values": lambda: (torch.float16, torch.device("cuda", 0), torch.Size([2, 3])),
    "random states": lambda: {"torch": torch.get_rng_state(), "cuda": [torch.get_rng_state()]},
    "quantised tensor": lambda: torch.quantize_per_tensor(noise(2, 2), 0.1, 0, torch.qint8),
    "sparse tensor": lambda: noise(2, 2).to_sparse(),
    "tensor with attributes": lambda: _set(noise(2, 2).clone(), tag="a"),
    "scheduler": _scheduler,
    "module": lambda: torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)),
    "metric of infinity": lambda: {"best": float("-inf"), "worst": float("nan"), "": None},
    "keys that are not strings": lambda: {1: "a", (2, "b"): noise(2, 2), None: 3, 1.5: 4},
}  # fmt: skip


def write_with_an_object(name: str, folder: Path, *, legacy: bool = False) -> Path:
    """A DINO checkpoint with one more thing in it."""
    path = folder / "checkpoint.pth"

    def save(make: Callable[[], Any]) -> Path:
        with warnings.catch_warnings(action="ignore"):
            extra = make()
            tree = {"teacher": dino(30), "epoch": 1, "extra": extra, "args": {"again": extra}}
            tree |= {"student": dino(40)}
            torch.save(tree, path, _use_new_zipfile_serialization=not legacy)
        return path

    if name in INSTALLED:
        return save(INSTALLED[name])
    bases, make = FOREIGN[name]
    with _stand_in(name, *bases) as cls:
        return save(lambda: make(cls))
