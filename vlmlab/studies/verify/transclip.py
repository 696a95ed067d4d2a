"""TransCLIP: the gain comes from predicting many images together (arXiv 2406.01837)."""

from __future__ import annotations

import torch

from vlmlab.learning.evaluate import evaluate
from vlmlab.methods.method import Batch
from vlmlab.registry import load_system
from vlmlab.studies.experiment import Experiment
from vlmlab.studies.run import adapt
from vlmlab.studies.table import spread
from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import BACKBONE

claim = "all test images predicted together gain over zero-shot prediction; the same images ten at a time gain less"
DATASETS = ("objects-v2", "objects-sketch", "objects-mosaic", "textures", "aerial", "actions", "creatures", "flowers")
FEW = 10
SEEDS = (1, 2, 3)


def measure() -> Verdict:
    """Zero-shot prediction with the same single sentence; small groups are drawn at random, three times; holds if the
    mean gain over the datasets is positive together, and larger than in groups of ten."""
    together, apart, measured = [], [], {}
    for name in DATASETS:
        adapted = adapt(Experiment("transclip", name, BACKBONE, 0, 1))
        method, task, bank = adapted.method, adapted.task, adapted.bank
        zero = load_system("zero_shot")(bank.backbone)
        zero.prepare(task)
        zero.set_classes(task.classes, task.templates[:1])
        start = evaluate(zero, task.test, bank)["accuracy"]
        gain = evaluate(method, task.test, bank)["accuracy"] - start
        features, labels = bank.features(task.test), task.test.labels
        right = []
        for seed in SEEDS:
            order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
            groups = [method.logits(Batch(features=features[part])) for part in order.split(FEW)]
            right.append(100 * float((torch.cat(groups).argmax(1) == labels[order]).float().mean()) - start)
        together.append(gain)
        apart.append(spread(right)[0])
        measured[f"{name}_gain"] = round(gain, 2)
    means = [round(sum(gains) / len(gains), 2) for gains in (together, apart)]
    measured |= {"mean_gain_together": means[0], "mean_gain_ten_at_a_time": means[1]}
    return Verdict("transclip", claim, measured, means[0] > 0 and means[0] > means[1])
