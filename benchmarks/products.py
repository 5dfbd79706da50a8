"""The bare fp32 product: the least that any method without a shortcut has to compute."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import numpy as np
import numpy.typing as npt

from benchmarks.inputs import Rows
from benchmarks.methods import Answer, Method

_ROWS, _COLUMNS = 1024, 2048
# Above this K a part of the row blocks is multiplied and the time extrapolated.
_WHOLE = 65536
_MEASURED_ROWS = 4096
# Errors of fp32 sums are far below this for unit rows, those of bf16 or TF32 inputs far above.
_FLOAT32_ERROR = 2e-6

Tile = npt.NDArray[np.float32]
Product = Callable[[Rows, Rows, Tile], object]


def methods() -> list[Method]:
    """All K^2 scores, and the upper triangle of them."""
    return [
        Method("product", "bare fp32 product, K^2", "audit", _square, _read, most=1 << 20),
        Method("triangle", "bare fp32 product, triangle", "audit", _triangle, _read, most=1 << 20),
    ]


def _square(rows: Rows) -> tuple[str, float]:
    return _multiply(rows, triangle=False)


def _triangle(rows: Rows) -> tuple[str, float]:
    return _multiply(rows, triangle=True)


def _multiply(rows: Rows, *, triangle: bool) -> tuple[str, float]:
    """Overwrite one tile with all scores; returns the library and the share that was done."""
    name, product = _fastest(rows)
    out = np.empty((_ROWS, _COLUMNS), dtype=np.float32)
    k = len(rows)
    last = k if k <= _WHOLE else _MEASURED_ROWS
    done = 0
    for start in range(0, last, _ROWS):
        left = rows[start : min(start + _ROWS, last)]
        for column in range(start // _COLUMNS * _COLUMNS if triangle else 0, k, _COLUMNS):
            right = rows[column : column + _COLUMNS]
            product(left, right, out[: len(left), : len(right)])
            done += len(left) * len(right)
    wanted = k * k / 2 if triangle else k * k
    return name, 1.0 if k <= _WHOLE else done / wanted


def _read(found: tuple[str, float], rows: Rows) -> Answer:
    del rows
    name, share = found
    return Answer(note=name, share=share)


_chosen: list[tuple[str, Product]] = []


def _fastest(rows: Rows) -> tuple[str, Product]:
    """The fastest library here whose error is that of fp32; tried once per process."""
    if not _chosen:
        trial = np.ascontiguousarray(rows[:_ROWS]), np.ascontiguousarray(rows[:_COLUMNS])
        products = _products()
        times = {name: _time(product, *trial) for name, product in products.items()}
        name = min(times, key=lambda name: times[name])
        _chosen.append((name, products[name]))
    return _chosen[0]


def _time(product: Product, left: Rows, right: Rows) -> float:
    """Best of five times in seconds; infinite if the scores are not those of fp32."""
    out = np.empty((len(left), len(right)), dtype=np.float32)
    product(left, right, out)
    if np.abs(out - left.astype(np.float64) @ right.T.astype(np.float64)).max() > _FLOAT32_ERROR:
        return float("inf")
    times = []
    for _ in range(5):
        start = perf_counter()
        product(left, right, out)
        times.append(perf_counter() - start)
    return min(times)


def _by_numpy(left: Rows, right: Rows, out: Tile) -> None:
    np.matmul(left, right.T, out=out)


def _by_torch(left: Rows, right: Rows, out: Tile) -> None:
    _set_precision("none")
    _torch_product(left, right, out)


def _by_onednn(left: Rows, right: Rows, out: Tile) -> None:
    # Sends the product to oneDNN, which still computes in fp32 on processors without AMX; on
    # those with AMX it computes in bf16, and `_time` refuses it.
    _set_precision("bf16")
    _torch_product(left, right, out)


def _set_precision(name: str) -> None:
    """Which inputs oneDNN may round to; a setting that torch has had since 2.9."""
    import torch

    matmul = getattr(torch.backends.mkldnn, "matmul", None)
    if matmul is not None:
        matmul.fp32_precision = name


def _torch_product(left: Rows, right: Rows, out: Tile) -> None:
    import torch

    if out.flags.c_contiguous:
        torch.mm(torch.from_numpy(left), torch.from_numpy(right).T, out=torch.from_numpy(out))
    else:
        out[:] = torch.mm(torch.from_numpy(left), torch.from_numpy(right).T).numpy()


def _products() -> dict[str, Product]:
    """What this machine has."""
    import torch

    found: dict[str, Product] = {"numpy": _by_numpy, "torch": _by_torch}
    if hasattr(torch.backends.mkldnn, "matmul"):  # torch 2.9 and later
        found["torch (oneDNN)"] = _by_onednn
    return found
