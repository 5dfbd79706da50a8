"""What all pictures share: colours, labels, and Axes where the caller gives none."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from collapse_audit.errors import ParameterError
from collapse_audit.similarity import Points

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from collapse_audit.mlcd import MLCD
    from collapse_audit.prototypes import Prototypes
    from collapse_audit.redundancy import Redundancy


class Audited(Protocol):
    """An audit of one head, as far as pictures need it."""

    @property
    def prototypes(self) -> Prototypes:
        """The prototypes."""

    @property
    def redundancy(self) -> Redundancy:
        """Groups and sweep."""

    @property
    def mlcd(self) -> MLCD | None:
        """Class distribution, if it was measured."""


# Blue, vermilion and green of Okabe and Ito (2008): told apart with any colour vision and in print.
K_COLOUR, M_COLOUR, EFFECTIVE_COLOUR, NULL_COLOUR = "#0072B2", "#D55E00", "#009E73", "#767676"
# All that they have and can be seen on white, for things without a meaning of their own.
COLOURS = (K_COLOUR, M_COLOUR, EFFECTIVE_COLOUR, "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Even steps of lightness, for any colour vision and in print (Nunez and others 2018).
COLOUR_MAP = "cividis"
# Points beyond this number are one image inside a vector file, which stays small.
_MANY_POINTS = 3000


def axes_or_new(ax: Axes | None) -> Axes:
    """The Axes given, or those of a new figure."""
    return new_figure((6.0, 4.0)).add_subplot() if ax is None else ax


def new_figure(size: tuple[float, float]) -> Figure:
    """A figure that a notebook shows, and of which a script keeps nothing."""
    ipython = sys.modules.get("IPython")
    if ipython is not None and ipython.get_ipython() is not None:
        from matplotlib import pyplot  # shows its figures when the cell ends, and closes them

        shown: Figure = pyplot.figure(figsize=size, layout="constrained")
        return shown
    from matplotlib.figure import Figure  # no window, no global state, nothing to close

    return Figure(figsize=size, layout="constrained")


def log_log(ax: Axes, title: str, x: str, y: str) -> None:
    """Two logarithmic axes and all that is written on them."""
    ax.set(xscale="log", yscale="log", title=title, xlabel=x, ylabel=y)


def check_audit(given: object, caller: str) -> None:
    """A ParameterError if something is no audit."""
    if not hasattr(given, "redundancy") or not hasattr(given, "prototypes"):
        raise ParameterError(f"{caller} takes an audit; got {kind_of(given)}.")


def rows_of(audit: Audited, index: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    """Some prototypes as the audit compared them: directions, or points of norm one at most."""
    if audit.redundancy.metric == "cosine":
        return audit.prototypes.unit_rows(index)
    return Points(audit.prototypes).unit_rows(index)


def threshold_label(metric: str) -> str:
    """What an axis of thresholds is called."""
    return r"threshold $\epsilon$ (cosine distance)" if metric == "cosine" else "radius (distance)"


def as_image(points: int) -> bool:
    """Whether so many points are to be drawn as an image."""
    return points > _MANY_POINTS


def kind_of(given: object) -> str:
    """What something is, for a message that refuses it."""
    return f"an array of shape {given.shape}" if hasattr(given, "shape") else type(given).__name__
