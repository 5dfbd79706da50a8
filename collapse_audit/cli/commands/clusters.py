"""`collapse-audit clusters`: how many clusters do features have?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from collapse_audit.cli.console import check_output, emit
from collapse_audit.cli.formats import table_width
from collapse_audit.cli.options import format_options
from collapse_audit.errors import SourceError
from collapse_audit.report.clusters_text import clusters_to_table
from collapse_audit.report.json_text import to_json

if TYPE_CHECKING:
    import numpy.typing as npt

_CHOICES: Final = "Give digits, or a .npy, .npz or .csv file with one row of numbers per sample."


@click.command(
    name="clusters",
    epilog="""\b
Examples:
  collapse-audit clusters features.npz
  collapse-audit clusters table.csv --centres 100 --format json

\b
DATA is digits, a .npy or .csv file (n x d), or a .npz file with `features` or one array.
Exit codes: 0 an estimate or none, 2 data that allow neither.""",
)
@click.argument("data", metavar="DATA", type=click.Path())
@click.option(
    "--centres",
    type=int,
    metavar="K",
    help="Centres of k-means; by default one for eight samples, at most 64. Only counts below K / 2"
    " can be found.",
)
@click.option(
    "--bootstraps",
    type=int,
    default=16,
    show_default=True,
    help="How often the samples are drawn again; the majority has to agree.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the draws and of k-means.")
@format_options(("table", "json"), "Write to FILE instead of stdout.")
def clusters_command(
    data: str,
    *,
    centres: int | None,
    bootstraps: int,
    seed: int,
    form: str,
    output: Path | None,
) -> None:
    """Estimate the number of clusters of DATA, or say why there is no estimate.

    Looks for a count of linked k-means centres that a wide range of epsilon leaves alone, in the
    data and in bootstraps. It abstains unless clusters are far apart, round and normal. Distances
    are Euclidean: scale columns of different units before. Never use it on the prototypes of a
    head: how many of those differ follows the objective.
    """
    from collapse_audit.clusters import estimate_clusters

    if output is not None:
        check_output(output, [data])
    rows = _read(data)
    found = estimate_clusters(rows, centres=centres, bootstraps=bootstraps, seed=seed).to_dict()
    if form == "json":
        emit(to_json(found), output)
    else:
        emit(clusters_to_table(found, width=table_width(to_terminal=output is None)), output)


def _read(data: str) -> npt.NDArray[Any]:
    """The array of a data source, whatever is in it."""
    if data == "digits":
        from sklearn.datasets import load_digits

        digits: npt.NDArray[Any] = load_digits().data
        return digits
    path = Path(data).expanduser()
    reader = _READERS.get(path.suffix.lower())
    if reader is None or not path.is_file():
        what = "no such file" if reader else "no data that this command reads"
        raise SourceError(f"{data}: {what}.", hint=_CHOICES)
    try:
        return reader(path)
    except SourceError:
        raise
    except Exception as error:
        # damaged bytes make the readers fail in any way there is
        lines = str(error).partition(";")[0].splitlines() or [type(error).__name__]
        raise SourceError(f"{data}: cannot be read: {lines[0].rstrip('.')}.") from error


def _npy(path: Path) -> npt.NDArray[Any]:
    import numpy as np

    array: npt.NDArray[Any] = np.load(path, allow_pickle=False)
    return array


def _npz(path: Path) -> npt.NDArray[Any]:
    from collapse_audit.network.datasets import load_arrays

    arrays = load_arrays(path)
    if "features" not in arrays and len(arrays) != 1:
        raise SourceError(
            f"{path}: no array 'features' among {', '.join(sorted(arrays)) or 'none'}.",
            hint="Name the samples so, or save them alone.",
        )
    return arrays.get("features", next(iter(arrays.values())))


def _csv(path: Path) -> npt.NDArray[Any]:
    import numpy as np

    lines = path.read_text(encoding="utf-8-sig").splitlines()
    try:
        [float(cell) for cell in lines[0].split(",")]
    except (ValueError, IndexError):  # names of columns, or nothing
        lines = lines[1:]
    if not lines:
        raise SourceError(f"{path}: no rows of numbers.", hint=_CHOICES)
    return np.loadtxt(lines, delimiter=",", ndmin=2)


_READERS: Final[dict[str, Callable[[Path], npt.NDArray[Any]]]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".csv": _csv,
}
