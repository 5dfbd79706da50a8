"""The certified similarity engine: which prototypes are duplicates, exactly and fast.

``Comparison`` answers *is this pair closer than the threshold* for tiles of pairs; ``leader_cover``
groups, ``link_groups`` connects and counts, ``NearestSearch`` ranks, and ``survey`` asks them all,
over every epsilon of a sweep; ``bracket_unique`` bounds what other scan orders would find. Each
equals its float64 definition on the stored weights. How the products are made fast, and how wrong
they may be, is in ``products``; ``choose_panels`` takes the fastest of this machine. In the
Euclidean metric ``EuclideanComparison`` answers in its place, at a radius.
"""

from collapse_audit.similarity.bracket import Bracket, bracket_unique
from collapse_audit.similarity.components import connect_groups
from collapse_audit.similarity.cover import Cover, leader_cover
from collapse_audit.similarity.default_radius import DefaultRadius, default_radius
from collapse_audit.similarity.euclidean import EuclideanComparison, Points
from collapse_audit.similarity.links import Links, link_groups
from collapse_audit.similarity.n_eff import NEff, counted, near_mass
from collapse_audit.similarity.nearest import Nearest, NearestSearch
from collapse_audit.similarity.null import duplicate_probability, nearest_cosine_quantiles
from collapse_audit.similarity.predicate import Comparison, Threshold
from collapse_audit.similarity.products.choice import Arithmetic, choose_panels
from collapse_audit.similarity.progress import Progress, silent
from collapse_audit.similarity.survey import Survey, SweepLevel, survey

__all__ = [
    "Arithmetic",
    "Bracket",
    "Comparison",
    "Cover",
    "DefaultRadius",
    "EuclideanComparison",
    "Links",
    "NEff",
    "Nearest",
    "NearestSearch",
    "Points",
    "Progress",
    "Survey",
    "SweepLevel",
    "Threshold",
    "bracket_unique",
    "choose_panels",
    "connect_groups",
    "counted",
    "default_radius",
    "duplicate_probability",
    "leader_cover",
    "link_groups",
    "near_mass",
    "nearest_cosine_quantiles",
    "silent",
    "survey",
]
