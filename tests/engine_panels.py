"""Every arithmetic that the engine can run in, and one as wrong as its bound allows."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from collapse_audit.similarity.products.panel import Float32Panel, Operand, Panel, PanelKind
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


def from_torch(name: str) -> PanelKind:
    """A panel of the torch module, which is imported when it is used."""

    def make(source: RowSource) -> Panel:
        from collapse_audit.similarity import integer_panel, torch_panel

        class ScreenedPanel(torch_panel.BFloat16Panel):
            """Rows in bf16, and whole numbers for the screens on every processor."""

            def coarser(self) -> type[Panel]:
                return integer_panel.Int8Panel

        kinds: dict[str, PanelKind] = {
            "bfloat16": torch_panel.BFloat16Panel,
            "float32": torch_panel.TorchFloat32Panel,
            "int8": integer_panel.Int8Panel,
            "screened": ScreenedPanel,
        }
        return kinds[name](source)

    return make


def on_device(source: RowSource, device: str = "cpu") -> Panel:
    """The CUDA panel's code, in blocks small enough to be several; on CPU tensors by default."""
    from collapse_audit.similarity.products.cuda import DevicePanel

    panel = DevicePanel(source, device)
    panel.block_rows, panel.scan_rows, panel.chunk_rows = 600, 250, 400
    return panel


# Every arithmetic that the engine can run in, by name: a test that takes `panel` runs once in each.
PANELS: dict[str, PanelKind] = {
    "numpy": Float32Panel,
    "worst": WorstPanel,
    "bfloat16": from_torch("bfloat16"),
    "float32": from_torch("float32"),
    "int8": from_torch("int8"),
    "screened": from_torch("screened"),
    "device": on_device,
}
if torch.cuda.is_available():
    PANELS["cuda"] = partial(on_device, device="cuda")
# The same products in another library take the part of the tests that could tell them apart.
IN_EVERY_TEST = [name for name in PANELS if name not in {"float32", "bfloat16", "device", "cuda"}]
