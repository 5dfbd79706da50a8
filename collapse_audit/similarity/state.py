"""What is known of every prototype at the threshold that a survey has come to."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from collapse_audit.similarity.components import Components
from collapse_audit.similarity.cover import Cover
from collapse_audit.similarity.links import Links
from collapse_audit.similarity.products.rows import Index


class State:
    """Group and component of every prototype at one threshold, each known by a prototype of it.

    Attributes:
        leader: Leader of the group of each prototype (k).
        component: Smallest prototype of the component of each one (k).
        neighbours: Other prototypes closer than the threshold (k).
        clique: Whether all members of a leader's group are closer than that to each other (k).
        radius: Upper bound of the angle between a leader and its members, radians (k).
    """

    def __init__(self, k: int) -> None:
        self.leader = np.arange(k)
        self.component = np.arange(k)
        self.neighbours = np.zeros(k, dtype=np.int64)
        self.clique = np.ones(k, dtype=np.bool_)
        self.radius = np.zeros(k)

    def isolate(self, rows: Index) -> None:
        """Take note that some prototypes have no duplicate."""
        self.leader[rows] = self.component[rows] = rows
        self.neighbours[rows] = 0
        self.clique[rows] = True
        self.radius[rows] = 0.0

    def take(self, rows: Index, cover: Cover, components: Components) -> None:
        """Take the groups of some prototypes, which are sorted and whole components."""
        # Members of a group are neighbours until :meth:`count` knows better: groups that are looked
        # at no more until the threshold falls below their diameter are cliques.
        self.leader[rows] = cover.leaders[cover.group[rows]]
        self.component[rows] = smallest_of(rows, components.component[rows])
        self.radius[cover.leaders] = components.radius
        self.neighbours[rows] = cover.sizes[cover.group[rows]] - 1
        self.clique[cover.leaders] = True

    def count(self, rows: Index, cover: Cover, links: Links) -> None:
        """Take what the pairs of those prototypes tell."""
        self.neighbours[rows] = links.neighbours[rows]
        self.clique[cover.leaders] = links.clique

    def counts(self) -> tuple[int, int, int]:
        """Groups, components, and prototypes without a duplicate."""
        everyone = np.arange(len(self.leader))
        members = np.bincount(self.component)
        return (
            int(np.count_nonzero(self.leader == everyone)),
            int(np.count_nonzero(members)),
            int(np.count_nonzero(members == 1)),
        )

    def cover(self) -> Cover:
        """The groups, by the index of their leaders."""
        leaders, group = np.unique(self.leader, return_inverse=True)
        return Cover(leaders=leaders, group=group)

    def links(self) -> Links:
        """What :meth:`cover` goes with."""
        leaders = np.unique(self.leader)
        components, component = np.unique(self.component, return_inverse=True)
        return Links(
            component=component,
            num_components=len(components),
            neighbours=self.neighbours.copy(),
            clique=self.clique[leaders],
            radius=self.radius[leaders],
        )


def smallest_of(rows: Index, label: npt.NDArray[np.integer]) -> Index:
    """The first of the rows with the same label, for each of them; rows rise."""
    _, first, place = np.unique(label, return_index=True, return_inverse=True)
    return np.asarray(rows[first][place])
