"""Fine-tuning gains where it learned and pays elsewhere, compared with its average (arXiv 2109.01903, figure 1)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify.wise_ft import frontier

claim = "fine-tuning all weights gains on images of its own kind, and gains less, or loses, on shifted ones"
cause = (
    "four images per class are few to move every weight of a small tower; its average with the zero-shot "
    "weights gains (wise_ft)"
)


def measure() -> Verdict:
    """4 shots of objects-v2, one seed; holds if the gain on them is positive and larger than on two other styles."""
    rows = frontier()
    same, shifted = (rows[-1][name] - rows[0][name] for name in ("same", "shifted"))
    measured = {"gain": round(same, 2), "gain_under_shift": round(shifted, 2)}
    return Verdict("fine_tuning", claim, measured, same > 0 and same > shifted)
