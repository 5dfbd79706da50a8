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
# # Train, audit, and train again
#
# A head with K prototypes need not use K directions. Here we train small heads on the digits of
# scikit-learn, without a regulariser and with KoLeo-proto, and count the unique prototypes of both.
# Everything runs offline on a CPU in less than a minute.
#
# The schedule is compressed and chosen so that the baseline collapses; `docs/training_results.md`
# says what that shows and what it does not.

# %%
# %matplotlib inline
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

import collapse_audit

runs = Path(tempfile.mkdtemp())

# %% [markdown]
# ## One configuration, two regularisers, two values of K

# %%
results = {}
for k in (128, 256):
    for regulariser in ("none", "koleo-proto"):
        config = collapse_audit.HeadTrainingConfig(k=k, regulariser=regulariser, iterations=800)
        folder = runs / f"{regulariser}-{k}"
        results[regulariser, k] = collapse_audit.run_training(config, folder, quiet=True)

# %%
rows = [
    {
        "regulariser": regulariser,
        "K": k,
        "M": result.after["unique"]["greedy"],
        "perplexity over K": result.after["perplexity"],
        "perplexity over unique": result.after["unique_perplexity"],
        "mutual information": result.after["mutual_information"],
        "linear probe": result.after["probes"]["linear"],
    }
    for (regulariser, k), result in results.items()
]
pd.DataFrame(rows).round(3)

# %% [markdown]
# The perplexity over K looks healthy for both: every prototype receives its share of the images.
# Over the *unique* prototypes the baseline is far poorer. The probe sees no difference: more unique
# prototypes are not the same as better features.
#
# ## Audit the heads that were written
#
# The trainer writes safetensors with DINO's keys, which the audit reads like any other checkpoint.

# %%
audits = {
    key: collapse_audit.audit_prototypes(collapse_audit.load_prototypes(result.head))
    for key, result in results.items()
}
{key: (audit.num_unique, audit.redundancy_factors[:5].tolist()) for key, audit in audits.items()}

# %% [markdown]
# ## M against K

# %%
figure, axes = plt.subplots(figsize=(4.5, 3.5), layout="constrained")
for regulariser in ("none", "koleo-proto"):
    counts = {k: audit.num_unique for (name, k), audit in audits.items() if name == regulariser}
    axes.plot(list(counts), list(counts.values()), marker="o", label=regulariser)
axes.plot([128, 256], [128, 256], linestyle=":", color="0.6", label="M = K")
axes.set(xlabel="prototypes K", ylabel="unique prototypes M", ylim=(0, None))
axes.legend()

# %% [markdown]
# ## Repair
#
# Start from the collapsed head, keep the backbone as it is, and add the regulariser.

# %%
collapsed = results["none", 256]
repair = collapse_audit.HeadTrainingConfig(
    k=256,
    regulariser="koleo-proto",
    init=str(collapsed.head),
    freeze_backbone=True,
    iterations=200,
)
repaired = collapse_audit.run_training(repair, runs / "repair", quiet=True)
repaired.before["unique"]["greedy"], repaired.after["unique"]["greedy"]
