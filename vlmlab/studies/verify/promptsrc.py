"""PromptSRC: held near the frozen model, prompts keep the new classes (arXiv 2307.06948, figure 3)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import base_to_new

claim = "with the frozen model as its teacher, the same prompts are better on new classes than without"


def measure() -> Verdict:
    """aerial and textures, base half learned, two seeds; holds if the mean on new classes is higher.

    Without means: the three consistency terms at zero and no averaging over epochs, which are independent prompts.
    """
    taught = base_to_new("promptsrc", (1, 2))
    free = base_to_new("promptsrc", (1, 2), text_weight=0.0, image_weight=0.0, logits_weight=0.0, sd_epoch=0.0)
    measured = taught | {f"free_{part}": free[part] for part in ("base", "new", "new_sd", "harmonic_mean")}
    return Verdict("promptsrc", claim, measured, taught["new"] > free["new"])
