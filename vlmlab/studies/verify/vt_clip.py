"""VT-CLIP's texts turn towards the image that they looked at, the right one most (arXiv 2112.02399)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from vlmlab.features.bank import evaluated
from vlmlab.studies.experiment import Experiment
from vlmlab.studies.run import adapt
from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import BACKBONE, SEEDS, over_seeds, results

claim = (
    "with four shots guided texts gain over zero-shot, and looking at the image parts the text of the right class from those "
    "of wrong ones"
)
DATASETS = ("aerial", "textures")
PICTURES = 200


def nearer(seed: int) -> tuple[float, float]:
    """By how much looking raises the cosine between image and text, mean over test images: right class, wrong classes."""
    run = adapt(Experiment("vt_clip", "textures", BACKBONE, 4, seed))
    method, test = run.method, run.task.test
    picked = torch.linspace(0, len(test) - 1, PICTURES).long().tolist()
    with torch.no_grad():
        f, z = method.seen(evaluated(method.backbone, test, picked))
        before = f @ method.classifier.T  # [N, C]
        after = torch.einsum("ne,nce->nc", f, F.normalize(method.guided(z)[0], dim=-1))
    right = F.one_hot(test.labels[picked], before.shape[1]).bool()
    return float((after - before)[right].mean()), float((after - before)[~right].mean())


def measure() -> Verdict:
    """aerial and textures, 4 shots, three seeds; holds if the mean gain over both is positive, and on textures the cosine of the
    right class changes for the better against those of wrong ones. CoOp is beside it."""
    measured: dict = {}
    for name in DATASETS:
        own, coop = results("vt_clip", name, 4), results("coop", name, 4)
        measured[f"vt_clip_{name}"], measured[f"vt_clip_{name}_sd"] = over_seeds(own)
        measured[f"coop_{name}"], measured[f"coop_{name}_sd"] = over_seeds(coop)
        measured[f"zero_shot_{name}"] = over_seeds(own, of="zero_shot")[0]
    gain = sum(measured[f"vt_clip_{name}"] - measured[f"zero_shot_{name}"] for name in DATASETS) / len(DATASETS)
    moved = [nearer(seed) for seed in SEEDS]
    right, wrong = (sum(m[k] for m in moved) / len(moved) for k in (0, 1))
    measured |= {
        "gain": round(gain, 2),
        "right_class_nearer_by": round(right, 4),
        "wrong_classes_nearer_by": round(wrong, 4),
    }
    return Verdict("vt_clip", claim, measured, gain > 0 and right > wrong)
