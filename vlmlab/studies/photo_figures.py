"""What the backbone `photo` reaches on a folder of photographs: the figures of its card, data/backbones/photo.md.

`python -m vlmlab.studies.photo_figures FOLDER` prints them, and those of the alignment's folds, for which no folder is
needed.
"""

from __future__ import annotations

import json
import statistics
import sys

import torch
import torch.nn.functional as F

from vlmlab.backbones import load_backbone
from vlmlab.backbones.photo import LOGIT_SCALE, TEMPLATES, held_out
from vlmlab.datasets import few_shot, load_dataset
from vlmlab.datasets.standard import CALTECH_NAMES
from vlmlab.features.bank import FeatureBank
from vlmlab.learning.evaluate import calibration_error


def evaluate_photo(folder: str, seeds: int = 30) -> dict:
    """Figures on a folder of photographs with train/ and test/: zero-shot top-1 and calibration error, in %, and top-1 of
    class means of K training images ([mean, deviation] over `seeds` draws).

    Class names are the folders', those of Caltech-101 as CoOp writes them.
    """
    backbone, dataset = load_backbone("photo"), load_dataset(folder)
    names = [CALTECH_NAMES.get(c, c).replace("_", " ") for c in dataset.classes]
    bank = FeatureBank(backbone)
    train, test = (F.normalize(bank.features(part), dim=-1) for part in (dataset.train, dataset.test))
    labels = dataset.test.labels
    classes = backbone.class_embeddings(names, list(TEMPLATES))
    logits = LOGIT_SCALE * test @ classes.T
    means = {}
    for shots in (1, 2, 4, 8, 16):
        right = []
        for seed in range(seeds):
            chosen = torch.as_tensor(few_shot(dataset.train, shots, seed, dataset.classes))
            sums = torch.zeros(len(names), train.shape[1]).index_add_(0, dataset.train.labels[chosen], train[chosen])
            right.append(100 * ((test @ F.normalize(sums, dim=-1).T).argmax(1) == labels).float().mean().item())
        means[shots] = [round(statistics.fmean(right), 1), round(statistics.pstdev(right), 1)]
    scales = torch.arange(5, 120, 1.0)
    on_train = train @ classes.T
    losses = [F.cross_entropy(s * on_train, dataset.train.labels).item() for s in scales]
    return {
        "zero_shot": round(100 * (logits.argmax(1) == labels).float().mean().item(), 1),
        "ece": round(100 * calibration_error(logits.softmax(1), labels), 1),
        "best_scale_on_train": float(scales[losses.index(min(losses))]),
        "class_means": means,
    }


if __name__ == "__main__":
    figures = {"held_out_classes": held_out()} | ({"folder": evaluate_photo(sys.argv[1])} if len(sys.argv) > 1 else {})
    print(json.dumps(figures, indent=1))
