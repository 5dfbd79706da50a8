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
# # Which classes does a head really predict?
#
# The marginal latent class distribution (MLCD) is the mean of p(k|x) over samples. Methods of the
# DINO family push it towards uniform. Govindarajan et al.
# ([arXiv 2410.14060](https://arxiv.org/abs/2410.14060)) show a shortcut: copy prototypes, and the
# distribution over all K of them looks uniform whatever the distribution over the unique ones is.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import numpy as np

import collapse_audit

# %% [markdown]
# ## The toy of the authors
#
# Two heads of K = 4 prototypes see the same four kinds of samples. In the first head all prototypes
# are unique; in the second there are two directions, twice each. The MLCD over the K prototypes is
# uniform in both, so it cannot tell them apart. The mutual information between sample and class
# can: it is log 4 in the first and log 2 in the second.

# %%
samples = np.repeat(np.eye(4), 25, axis=0)
unique = np.eye(4)
pairs = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]], dtype=float)
for name, weight in {"4 unique": unique, "2 unique": pairs}.items():
    prototypes = collapse_audit.Prototypes.from_weight(weight)
    groups = collapse_audit.audit_prototypes(prototypes, sweep=False).groups
    accumulator = collapse_audit.MLCDAccumulator(prototypes, temperature=0.02, groups=groups)
    toy = accumulator.update(samples).result()
    information = np.exp(toy.mutual_information)
    print(f"{name}: p = {toy.probabilities.round(3)}, I = log {information:.3f}")

# %% [markdown]
# ## A head and real images
#
# The embedded head was trained on scikit-learn's digits together with a small backbone, which ships
# with it. It has 512 prototypes, and many of them are copies.

# %%
model = collapse_audit.load_head_model(collapse_audit.embedded_head())
digits = collapse_audit.open_samples("digits")
audit = collapse_audit.audit_prototypes(model.prototypes)
mlcd = collapse_audit.measure_mlcd(model, digits, groups=audit.groups)

# %% [markdown]
# Over the K prototypes the distribution is nearly uniform. Over the M unique ones it is not.

# %%
for letter, level in {"K": mlcd.k, "M": mlcd.m}.items():
    print(f"{letter}: perplexity {level.perplexity:7.1f}, KL(p || uniform) {level.kl_to_prior:.3f}")

# %%
axes = collapse_audit.plot_rank_frequency(mlcd, ax=plt.subplots()[1])

# %% [markdown]
# The mass of a unique class follows the number of its copies: the points lie along q = r / K. So it
# is the copies that make p look uniform.

# %%
axes = collapse_audit.plot_redundancy_vs_mass(mlcd, ax=plt.subplots()[1])

# %% [markdown]
# The mutual information is the number that copies cannot inflate, in nats; beside it the value
# corrected for the finite sample. It is far from its limit of log M.

# %%
mlcd.mutual_information, mlcd.mutual_information_corrected, np.log(audit.num_unique)

# %% [markdown]
# ## Usage
#
# Of copies, just one can win the argmax. So the unique class of an image is the one whose copies
# have the largest mass together. The count depends on the number of samples.

# %%
axes = collapse_audit.plot_usage(mlcd, ax=plt.subplots()[1])

# %% [markdown]
# ## The most probable classes

# %%
mlcd.top_classes(5)
