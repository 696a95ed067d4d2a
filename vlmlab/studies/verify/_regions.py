"""What the checks of detectors share: a detector fitted to tableau, how good it is, and how good its pseudo labels are."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch

from vlmlab.datasets.task import Task
from vlmlab.learning.evaluate import evaluate
from vlmlab.learning.fit import fit
from vlmlab.methods.dense.detector import Detector
from vlmlab.methods.dense.pseudo_labels import PseudoLabels, quality
from vlmlab.randomness import LocalRandom
from vlmlab.registry import load_system
from vlmlab.studies.run import dataset_for, shared_bank
from vlmlab.studies.table import spread
from vlmlab.studies.verify._measure import BACKBONE, SEEDS


def detector(system: str, seed: int, prepare_only: bool = False, **settings) -> tuple[Detector, Task]:
    """A detector with these settings on tableau, learned with this seed; or one that has only been prepared."""
    bank = shared_bank(BACKBONE, "cpu")
    task = Task(bank.backbone, dataset_for(bank, "tableau"), 0, seed)
    kind = load_system(system)
    method = kind(bank.backbone, kind.configure(bank.backbone, **settings))
    method.bank = bank
    seen = task.seen_by(kind.info.setup)
    if prepare_only:
        with LocalRandom(seed):
            method.prepare(seen)
    else:
        fit(method, seen, bank=bank)
    return method, task


@functools.lru_cache(maxsize=64)
def measured(system: str, seeds: tuple[int, ...] = SEEDS, **settings) -> list[dict]:
    """Metrics on tableau's test images, one dict per seed; the same arm of several checks is measured once."""
    found = []
    for seed in seeds:
        method, task = detector(system, seed, **settings)
        found.append(evaluate(method, task.test, groups={"base": task.base, "new": task.new}))
    return found


def gain(own: Sequence[dict], other: Sequence[dict], metric: str = "ap50_new") -> tuple[float, float]:
    """(mean, standard deviation) over the seeds of the difference of a metric between two arms, to two decimals."""
    mean, deviation = spread([a[metric] - b[metric] for a, b in zip(own, other, strict=True)])
    return round(mean, 2), round(deviation, 2)


def mean(rows: Sequence[dict], metric: str) -> float:
    """The mean of a metric over the seeds, to two decimals."""
    return round(spread([row[metric] for row in rows])[0], 2)


def pseudo_quality(method, task: Task, pseudo: PseudoLabels, classes: Sequence[int]) -> dict[str, float]:
    """`quality` of those pseudo labels of the training images that bear one of these classes, against all the truth there is."""
    images = task.dataset.train
    truths = [frame.truth(images.truth(i)) for i, frame in enumerate(method.frames_of)]
    own = torch.isin(pseudo.labels, torch.tensor(list(classes), device=pseudo.labels.device))
    pseudo = PseudoLabels(pseudo.boxes, pseudo.labels, pseudo.weights, pseudo.there & own)
    return {name: round(value, 2) for name, value in quality(pseudo, truths, classes).items()}
