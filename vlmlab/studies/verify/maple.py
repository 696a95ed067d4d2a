"""MaPLe: coupled prompts in both towers keep more of the new classes than prompts in one (arXiv 2210.03117)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import base_to_new

claim = "coupled prompts in both towers beat prompts in the text tower alone on the harmonic mean of base and new"


def measure() -> Verdict:
    """aerial and textures, base half learned, two seeds; the text-only ablation has the same depth and length."""
    coupled, text = base_to_new("maple", (1, 2)), base_to_new("maple", (1, 2), coupling="language")
    measured = {f"coupled_{k}": v for k, v in coupled.items()} | {
        f"text_only_{k}": text[k] for k in ("base", "new", "harmonic_mean")
    }
    return Verdict("maple", claim, measured, coupled["harmonic_mean"] > text["harmonic_mean"])
