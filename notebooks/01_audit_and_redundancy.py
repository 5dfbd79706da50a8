# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Are the prototypes of a head different from one another?
#
# A head of K prototypes can hold far fewer directions. Govindarajan et al.
# ([arXiv 2410.14060](https://arxiv.org/abs/2410.14060)) call this *partial prototype collapse*.
# This notebook counts the unique prototypes of the small head that ships with the package. Put the
# path of your own checkpoint into `source` to audit that one.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import numpy as np

import collapse_audit

source = collapse_audit.embedded_head()  # or "path/to/checkpoint.pth"
prototypes = collapse_audit.load_prototypes(source)
prototypes.k, prototypes.d

# %% [markdown]
# The embedded head was trained on small images of digits without a diversity regulariser. Nothing
# was planted: it collapsed by itself.

# %%
audit = collapse_audit.audit_prototypes(prototypes)
audit

# %% [markdown]
# ## How often is each one repeated?
#
# The redundancy factor r_m is the number of prototypes that share one direction, and all r_m sum to
# K. A head without copies would be a flat line at 1.

# %%
axes = collapse_audit.plot_redundancy_factors(audit.redundancy_factors, ax=plt.subplots()[1])

# %% [markdown]
# ## Does the count depend on the threshold?
#
# Two prototypes are duplicates if their cosine distance is below epsilon; the papers use 0.025,
# which is 12.8 degrees. Being duplicates is not transitive, so the count also depends on the rule
# and on the scan order: the bracket says how far. Here both matter, so M should not be quoted
# without them.

# %%
axes = collapse_audit.plot_sweep(audit.redundancy.sweep, ax=plt.subplots()[1])
audit.redundancy.bracket

# %% [markdown]
# ## A control: directions without copies
#
# As many random directions of the same dimension, audited in the same way.

# %%
random = np.random.default_rng(0).standard_normal((prototypes.k, prototypes.d))
control = collapse_audit.audit_prototypes(collapse_audit.Prototypes.from_weight(random))
control.num_unique, audit.num_unique

# %% [markdown]
# None is a duplicate at 0.025. At 0.5, which is 60 degrees, some random directions are: a count at
# a generous epsilon should be read beside that of such a control.

# %%
axes = collapse_audit.plot_sweep(control.redundancy.sweep, ax=plt.subplots()[1])

# %% [markdown]
# ## Which prototypes are copies?

# %%
audit.to_frame().head()

# %% [markdown]
# `audit.groups` has the group of every prototype: these are the members of the largest one.

# %%
np.flatnonzero(audit.groups == 0)[:20]

# %% [markdown]
# `audit.to_json()` is the report that `collapse-audit SOURCE --format json` prints. What the copies
# do to the classes that the head predicts is the subject of `02_mlcd`.
