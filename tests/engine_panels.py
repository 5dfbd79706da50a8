"""Every arithmetic that the engine can run in, and one as wrong as its bound allows."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from collapse_audit.similarity import Comparison, Cover, Nearest, NearestSearch
from collapse_audit.similarity.products.bfloat16 import BFloat16Panel
from collapse_audit.similarity.products.choice import PanelPair
from collapse_audit.similarity.products.cuda import DevicePanel
from collapse_audit.similarity.products.float32 import Float32Panel, TorchFloat32Panel
from collapse_audit.similarity.products.int8 import Int8Panel
from collapse_audit.similarity.products.panel import Operand, Panel
from collapse_audit.similarity.products.rows import RowSource


class WorstPanel(Float32Panel):
    """A panel as wrong as its bound allows: every call errs anew, often by all of the bound.

    What is decided with it must still be exact, so it finds a certificate that is a little off
    where a good arithmetic hides it.
    """

    def __init__(self, source: RowSource) -> None:
        super().__init__(source)
        self._rng = np.random.default_rng(source.shape)
        self._noise = 0.02
        self.error += self._noise

    def tile(self, rows: Operand, columns: Operand) -> npt.NDArray[np.float32]:
        scores = super().tile(rows, columns)
        signs = self._rng.integers(-1, 2, size=scores.shape, dtype=np.int8)
        scores += np.float32(self._noise * (1 - 1e-5)) * signs
        return scores


def on_device(source: RowSource, device: str = "cpu") -> Panel:
    """The CUDA panel's code, in blocks small enough to be several; on CPU tensors by default."""
    panel = DevicePanel(source, device)
    panel.block_rows, panel.scan_rows, panel.chunk_rows = 600, 250, 400
    return panel


# Every arithmetic that the engine can run in; a test that takes `panels` runs once in each.
PANELS = {
    "numpy": PanelPair(Float32Panel),
    "worst": PanelPair(WorstPanel),
    "bfloat16": PanelPair(BFloat16Panel),
    "float32": PanelPair(TorchFloat32Panel),
    "int8": PanelPair(Int8Panel),
    "screened": PanelPair(BFloat16Panel, lambda: Int8Panel),  # on every processor
    "device": PanelPair(on_device),
}
if torch.cuda.is_available():
    PANELS["cuda"] = PanelPair(partial(on_device, device="cuda"))
# The same products in another library take the part of the tests that could tell them apart.
IN_EVERY_TEST = [name for name in PANELS if name not in {"float32", "bfloat16", "device", "cuda"}]


def nearest_of(comparison: Comparison, cover: Cover) -> Nearest:
    """The nearest prototypes, sought with the help of any cover."""
    search = NearestSearch(comparison)
    everyone = np.arange(comparison.prototypes.k)
    search.find(everyone, everyone, cover)
    return search.result()
