"""MaPLe: coupled prompts in both towers keep more of the new classes than prompts in one (arXiv 2210.03117)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import over_seeds, results

claim = "coupled prompts in both towers beat prompts in the text tower alone on the harmonic mean of base and new"


def measure() -> Verdict:
    """objects-silhouette, base half learned, two seeds; the text-only ablation has the same depth and length."""
    coupled = results("maple", "objects-silhouette", split="base", seeds=(1, 2))
    text = results("maple", "objects-silhouette", split="base", seeds=(1, 2), coupling="language")
    measured = {}
    for name, rows in (("coupled", coupled), ("text_only", text)):
        for split in ("base", "new", "harmonic_mean"):
            measured[f"{name}_{split}"] = over_seeds(rows, split)[0]
    measured["zero_shot_harmonic_mean"] = over_seeds(coupled, "harmonic_mean", "zero_shot")[0]
    return Verdict("maple", claim, measured, measured["coupled_harmonic_mean"] > measured["text_only_harmonic_mean"])
