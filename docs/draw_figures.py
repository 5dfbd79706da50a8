"""Draw the figures of docs/figures.md from heads of our own: ``make figures``.

The two heads that ship are read as they are. Those of the other sizes, and with KoLeo-data, are
trained first, with the default recipe and seed 0; finished runs in docs/_build/figures are kept, so
that only the first call takes minutes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import rc_context

import collapse_audit as ca
from collapse_audit.training.config import HeadTrainingConfig
from collapse_audit.training.sweep import run_sweep

HERE = Path(__file__).parent
RUNS = HERE / "_build" / "figures" / "runs"
SIZES = (128, 256, 512, 1024)
BASELINE, PROTO = "baseline", "KoLeo-proto"
SETTINGS = {BASELINE: "none", "KoLeo-data": "koleo-data", PROTO: "koleo-proto"}
SHIPPED = {BASELINE: ca.embedded_head()}
SHIPPED[PROTO] = SHIPPED[BASELINE].with_name("digits_koleo_proto.safetensors")


def trained(name: str, k: int) -> Path:
    """A head of the sweep."""
    return RUNS / f"k-{k}_regulariser-{SETTINGS[name]}" / "head.safetensors"


def features_of(head: Path) -> Path:
    """What the backbone of a shipped head gives for the held-out digits."""
    return head.with_suffix(".features.npz")


def bottleneck(head: Path) -> np.ndarray:
    """What a shipped head compares its prototypes with, of the held-out digits."""
    with np.load(features_of(head)) as file:
        features = torch.from_numpy(file["features"].astype(np.float32))
    model = ca.load_head_model(head, images=False)
    return np.asarray(model.bottleneck_of(features).detach())


def measured(head: Path) -> ca.CollapseAudit:
    """A head with its class distribution over the digits."""
    audit = ca.audit(head)
    return audit.with_mlcd(ca.measure_mlcd(head, "digits", groups=audit.groups))


def save(name: str, axes: Any) -> None:
    """Write the figure of some Axes as SVG, the same for the same numbers, with text as text."""
    with rc_context({"svg.hashsalt": "collapse-audit", "svg.fonttype": "none"}):
        axes.figure.savefig(HERE / "figures" / f"{name}.svg", metadata={"Date": None})
    print(name)  # noqa: T201 - tells that it goes on


def main() -> None:
    """Train what is missing, audit, draw."""
    sizes = ",".join(map(str, SIZES))
    run_sweep(
        HeadTrainingConfig(), [f"k={sizes}", f"regulariser={','.join(SETTINGS.values())}"], RUNS
    )
    heads = {name: measured(trained(name, 512)) for name in SETTINGS}
    heads |= {name: measured(head) for name, head in SHIPPED.items()}
    ours, regularised = heads[BASELINE], heads[PROTO]
    two = {BASELINE: ours, PROTO: regularised}
    save("plot_sweep", ca.plot_side_by_side(ca.plot_sweep, two)[0])
    save("plot_redundancy_factors", ca.plot_side_by_side(ca.plot_redundancy_factors, heads)[0])
    save("plot_redundancy_histogram", ca.plot_redundancy_histogram(ours))
    save("plot_largest_groups", ca.plot_largest_groups(ours))
    save("plot_nearest", ca.plot_side_by_side(ca.plot_nearest, two)[0])
    density = ca.plot_side_by_side(ca.plot_nearest, two, kind="density")
    save("plot_nearest_density", density[0])
    save("plot_prototype_map", ca.plot_side_by_side(ca.plot_prototype_map, heads)[0])
    save("plot_rank_frequency", ca.plot_side_by_side(ca.plot_rank_frequency, heads)[0])
    save("plot_redundancy_vs_mass", ca.plot_redundancy_vs_mass(ours))
    save("plot_usage", ca.plot_usage(ours))
    for name, head in SHIPPED.items():
        classes = ca.measure_mlcd(head, features_of(head), groups=heads[name].groups).unique_winners
        axes = ca.plot_class_map(heads[name], bottleneck(head), winners=classes)
        save(f"plot_class_map_{name.lower()}", axes)
    all_sizes = {name: [ca.audit(trained(name, k)) for k in SIZES] for name in SETTINGS}
    save("plot_unique_vs_k", ca.plot_unique_vs_k(all_sizes))


if __name__ == "__main__":
    main()
