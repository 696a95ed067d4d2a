"""UPL gains without a single label (arXiv 2204.03649)."""

from __future__ import annotations

from vlmlab.studies.run import shared_dataset
from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import over_seeds, results

claim = "prompts learned from pseudo-labels alone are better than the zero-shot prediction that made these labels"
cause = (
    "where the names are known, one sentence labels better than contexts that begin as noise and learn from "
    "its labels; UPL gains where the labeller is poor (aerial)"
)
DATASETS = ("vehicles", "textures", "aerial", "actions")


def measure() -> Verdict:
    """Four datasets, two seeds each; holds if the mean gain is above zero. The labels come from the first sentence of a
    dataset, so zero-shot prediction reads that one; with all sentences it may be better or worse."""
    measured: dict = {}
    for name in DATASETS:
        own = results("upl", name, 0, seeds=(1, 2))
        labeller = results("zero_shot", name, 0, seeds=(1,), templates=shared_dataset(name).templates[0])
        measured[name], measured[f"{name}_labels"] = over_seeds(own)[0], over_seeds(labeller)[0]
        measured[f"{name}_all_sentences"] = over_seeds(own, of="zero_shot")[0]
        measured[f"{name}_gain"] = round(measured[name] - measured[f"{name}_labels"], 2)
    mean = round(sum(measured[f"{name}_gain"] for name in DATASETS) / len(DATASETS), 2)
    return Verdict("upl", claim, measured | {"mean_gain": mean}, mean > 0)
