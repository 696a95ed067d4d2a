"""DenseCLIP: score maps of words lead a segmentation network (arXiv 2112.01518, table 1)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import over_seeds, results

claim = "with score maps of the class names the same network segments better than without them, with the encoder frozen or not"


def measure() -> Verdict:
    """tableau with its stuff, 4 pictures per class, one seed; mIoU in percent, MaskCLIP (no training) beside it."""
    found = {}
    for name, rate in (("frozen", 0.0), ("tuned", 0.1)):
        for kind, guided in (("guided", True), ("plain", False)):
            rows = results("denseclip", "tableau", 4, seeds=(1,), encoder_rate=rate, guided=guided)
            found[f"{name}_{kind}"] = over_seeds(rows, "miou")[0]
    found["maskclip"] = over_seeds(results("maskclip", "tableau", 0, seeds=(0,)), "miou")[0]
    holds = all(found[f"{name}_guided"] > found[f"{name}_plain"] for name in ("frozen", "tuned"))
    return Verdict("denseclip", claim, found, holds)
