"""DenseCLIP: score maps of words lead a segmentation network (arXiv 2112.01518, table 1)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict, judged
from vlmlab.studies.verify._measure import SEEDS, over_seeds, results

claim = "with score maps of the class names the same network segments better than without them, with the encoder frozen or not"
cause = "score maps make learning faster more than better here: shorter runs gain by them (chapter 6.1c)"


def measure() -> Verdict:
    """tableau with its stuff, 4 images per class, three seeds; mIoU in percent, MaskCLIP (no training) beside it.

    Holds if the gain by score maps, seed by seed, is larger in the mean than its own deviation over the seeds.
    """
    found: dict[str, float] = {}
    differences = {}
    for name, rate in (("frozen", 0.0), ("tuned", 0.1)):
        runs = {
            kind: results("denseclip", "tableau", 4, seeds=SEEDS, encoder_rate=rate, guided=guided)
            for kind, guided in (("guided", True), ("plain", False))
        }
        found |= {f"{name}_{kind}": over_seeds(rows, "miou")[0] for kind, rows in runs.items()}
        figures = [[row["metrics"]["miou"] for row in rows] for rows in runs.values()]
        differences[name] = [guided - plain for guided, plain in zip(*figures, strict=True)]
    found["maskclip"] = over_seeds(results("maskclip", "tableau", 0, seeds=(0,)), "miou")[0]
    return judged("denseclip", claim, found, differences)
