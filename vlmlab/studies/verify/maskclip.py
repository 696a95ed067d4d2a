"""MaskCLIP: the value path of the last attention segments where its ordinary output does not (arXiv 2112.01071)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import results

claim = "features from the value path segment better than the ordinary patch tokens of the last block"


def measure() -> Verdict:
    """tableau, all its classes as words, no learning; mean intersection over union in percent."""
    value, plain = (
        results("maskclip", "tableau", 0, seeds=(0,), features=f)[0]["metrics"]["miou"] for f in ("value", "plain")
    )
    return Verdict("maskclip", claim, {"value_path": round(value, 2), "plain_tokens": round(plain, 2)}, value > plain)
