"""Pictures of results: each takes a result, draws it on one Axes, and returns the Axes.

Without Axes of yours, a cell of a notebook shows the picture, and a script opens no window: there
it is yours to save, ``plot_sweep(audit).figure.savefig("sweep.pdf")``. The public names are those
of ``collapse_audit``.
"""
