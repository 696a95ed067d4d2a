"""MaPLe: coupled prompts in both towers keep more of the new classes than prompts in one (arXiv 2210.03117, table 1)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import base_to_new

claim = "coupled prompts in both towers beat prompts in one tower alone on the harmonic mean of base and new"


def measure() -> Verdict:
    """aerial and textures, base half learned, two seeds; the ablations have the same depth and length of prompts.

    Holds if the coupled prompts beat text alone and image alone; free prompts in both towers are shown beside them.
    """
    runs = {tie: base_to_new("maple", (1, 2), coupling=tie) for tie in ("coupled", "independent", "language", "vision")}
    shown = ("base", "new", "new_sd", "harmonic_mean")
    measured = {f"{tie}_{part}": run[part] for tie, run in runs.items() for part in shown}
    measured["zero_shot_harmonic_mean"] = runs["coupled"]["zero_shot_harmonic_mean"]
    coupled = measured["coupled_harmonic_mean"]
    one_tower = max(measured["language_harmonic_mean"], measured["vision_harmonic_mean"])
    return Verdict("maple", claim, measured, coupled > one_tower)
