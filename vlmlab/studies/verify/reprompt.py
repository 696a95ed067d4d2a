"""RePrompt: what is looked up adds to what the prompt has learned (arXiv 2306.02243, abstract)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import over_seeds, results

claim = "a store of the labelled images adds to the same visual prompt without one"

DATASETS = ("textures", "digits")


def measure() -> Verdict:
    """textures and digits, 16 shots, two seeds; holds if the mean over datasets and seeds is higher with the store."""
    measured: dict[str, float] = {}
    means = []
    for name, retrieval in (("with", True), ("without", False)):
        accuracies = [over_seeds(results("reprompt", d, 16, seeds=(1, 2), retrieval=retrieval)) for d in DATASETS]
        for dataset, (mean, deviation) in zip(DATASETS, accuracies, strict=True):
            measured |= {f"{name}_{dataset}": mean, f"{name}_{dataset}_sd": deviation}
        means.append(sum(mean for mean, _ in accuracies) / len(DATASETS))
        measured[f"{name}_mean"] = round(means[-1], 2)
    return Verdict("reprompt", claim, measured, means[0] > means[1])
