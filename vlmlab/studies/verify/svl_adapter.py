"""SVL-Adapter pays where CLIP's image features miss what matters (arXiv 2210.03794, figure 3)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import over_seeds, results

claim = "against CLIP-Adapter, an encoder that learned on the task's own images gains far from pretraining more than near it"
FAR, NEAR = ("digits", "aerial", "textures"), ("vehicles", "flowers")


def measure() -> Verdict:
    """4 shots, three seeds; holds if the mean difference is positive over the far datasets and larger than over the near ones.

    Which dataset is far is said by the catalogue, not by the result: digits, land from above and adjectives as names."""
    measured: dict = {}
    for name in (*FAR, *NEAR):
        own, adapter = results("svl_adapter", name, 4), results("clip_adapter", name, 4)
        measured[f"svl_{name}"], measured[f"svl_{name}_sd"] = over_seeds(own)
        measured[f"clip_adapter_{name}"] = over_seeds(adapter)[0]
        measured[f"gain_{name}"] = round(measured[f"svl_{name}"] - measured[f"clip_adapter_{name}"], 2)
    far, near = (round(sum(measured[f"gain_{n}"] for n in names) / len(names), 2) for names in (FAR, NEAR))
    return Verdict("svl_adapter", claim, measured | {"gain_far": far, "gain_near": near}, far > 0 and far > near)
