"""MaskCLIP+: a student of MaskCLIP and of the masks of seen classes (arXiv 2112.01071)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict, judged
from vlmlab.studies.verify._measure import SEEDS, over_seeds, results

claim = "on classes without a mask the student segments better than MaskCLIP, which labelled their pixels for it"


def measure() -> Verdict:
    """tableau with its stuff, three seeds; mean intersection over union in percent of base and new classes.

    Judged by the gain on new classes, seed by seed (see `judged`); `teacher` is MaskCLIP of the same tower with the same
    sentences.
    """
    rows = results("maskclip_plus", "tableau", 0, seeds=SEEDS)
    (teacher,) = results("maskclip", "tableau", 0, seeds=(0,))
    gains = [row["metrics"]["miou_new"] - teacher["metrics"]["miou_new"] for row in rows]
    found = {f"student_{group}": over_seeds(rows, f"miou_{group}")[0] for group in ("base", "new")}
    found |= {f"teacher_{group}": round(teacher["metrics"][f"miou_{group}"], 2) for group in ("base", "new")}
    return judged("maskclip_plus", claim, found, gains)
