"""CAVPT: prompts that know the candidate classes beat prompts that do not (arXiv 2208.08340, table 1)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import over_seeds, results

claim = "class-aware visual prompts in the last block beat plain learned ones there, all else being equal"

DATASETS = ("aerial", "textures")


def measure() -> Verdict:
    """aerial and textures, 16 shots, two seeds; holds if the mean over datasets and seeds is higher."""
    measured: dict[str, float] = {}
    means = []
    for name, aware in (("class_aware", True), ("plain", False)):
        accuracies = [over_seeds(results("cavpt", d, 16, seeds=(1, 2), class_aware=aware)) for d in DATASETS]
        for dataset, (mean, deviation) in zip(DATASETS, accuracies, strict=True):
            measured |= {f"{name}_{dataset}": mean, f"{name}_{dataset}_sd": deviation}
        means.append(sum(mean for mean, _ in accuracies) / len(DATASETS))
        measured[f"{name}_mean"] = round(means[-1], 2)
    return Verdict("cavpt", claim, measured, means[0] > means[1])
