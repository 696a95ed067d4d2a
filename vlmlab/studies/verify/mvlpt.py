"""MVLPT's prompts start from what related source tasks have in common (arXiv 2211.11720, section 4)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import over_seeds, results

claim = "at one shot, prompts that start from related source tasks are better than prompts that start from noise"
cause = "what these source tasks teach may not be what the target needs"

TARGETS, SEEDS = ("aerial", "textures"), (1, 2)


def measure() -> Verdict:
    """aerial and textures at one shot, the others of their group as sources; holds if the mean over both targets and
    two seeds is above that of the same prompts without a source stage."""
    measured: dict[str, float] = {}
    for name in TARGETS:
        for word, companions in (("sources", "related"), ("alone", "alone")):
            mean, deviation = over_seeds(results("mvlpt", name, 1, seeds=SEEDS, companions=companions))
            measured |= {f"{name}_{word}": mean, f"{name}_{word}_sd": deviation}
    sources, alone = (sum(measured[f"{name}_{word}"] for name in TARGETS) / 2 for word in ("sources", "alone"))
    measured |= {"sources": round(sources, 2), "alone": round(alone, 2)}
    return Verdict("mvlpt", claim, measured, sources > alone)
