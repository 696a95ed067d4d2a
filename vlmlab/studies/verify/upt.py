"""UPT: prompts in both towers are a better bet than as many in one (arXiv 2210.07225, table 1)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import over_seeds, results

claim = (
    "over several datasets, unified prompts beat text prompts alone and visual prompts alone of the same total number"
)

DATASETS = ("aerial", "textures")


def measure() -> Verdict:
    """aerial and textures, 16 shots, two seeds; UPT has four tokens per tower and layer, a half alone has eight.

    Holds if the mean over the datasets is higher than that of either half.
    """
    measured: dict[str, float] = {}
    means = {}
    for towers in ("both", "text", "image"):
        rows = {name: results("upt", name, 16, seeds=(1, 2), towers=towers, n_ctx=4 if towers == "both" else 8)
                for name in DATASETS}  # fmt: skip
        measured |= {f"{towers}_{name}": over_seeds(rows[name])[0] for name in DATASETS}
        means[towers] = sum(measured[f"{towers}_{name}"] for name in DATASETS) / len(DATASETS)
        measured[f"{towers}_mean"] = round(means[towers], 2)
    return Verdict("upt", claim, measured, means["both"] > max(means["text"], means["image"]))
