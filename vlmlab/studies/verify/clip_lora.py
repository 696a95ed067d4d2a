"""CLIP-LoRA against prompts at equal shots (arXiv 2405.18541, figure 1)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import over_seeds, results

claim = "with four shots low-rank updates inside of both towers gain more than CoOp's prompts in front of one"
DATASETS = ("aerial", "textures")


def measure() -> Verdict:
    """aerial and textures, 4 shots, two seeds; holds if the mean accuracy over both is above CoOp's."""
    measured: dict = {}
    for system in ("clip_lora", "coop"):
        for name in DATASETS:
            rows = results(system, name, 4, seeds=(1, 2))
            measured[f"{system}_{name}"], measured[f"{system}_{name}_sd"] = over_seeds(rows)
            measured[f"zero_shot_{name}"] = over_seeds(rows, of="zero_shot")[0]
    own, coop = (sum(measured[f"{system}_{name}"] for name in DATASETS) / 2 for system in ("clip_lora", "coop"))
    return Verdict("clip_lora", claim, measured | {"gain_over_coop": round(own - coop, 2)}, own > coop)
