"""What the checks of pseudo labels share: a detector fitted to tableau or only prepared, and how good its pseudo labels are."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vlmlab.datasets.task import Task
from vlmlab.learning.fit import fit
from vlmlab.methods.dense.detector import Detector
from vlmlab.methods.dense.pseudo_labels import PseudoLabels, quality
from vlmlab.randomness import LocalRandom
from vlmlab.registry import load_system
from vlmlab.studies.run import dataset_for, shared_bank
from vlmlab.studies.verify._measure import BACKBONE


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


def pseudo_quality(method, task: Task, pseudo: PseudoLabels, classes: Sequence[int]) -> dict[str, float]:
    """`quality` of those pseudo labels of the training images that bear one of these classes, against all the truth there is."""
    images = task.dataset.train
    truths = [frame.truth(images.truth(i)) for i, frame in enumerate(method.frames_of)]
    own = torch.isin(pseudo.labels, torch.tensor(list(classes), device=pseudo.labels.device))
    pseudo = PseudoLabels(pseudo.boxes, pseudo.labels, pseudo.weights, pseudo.there & own)
    return {name: round(value, 2) for name, value in quality(pseudo, truths, classes).items()}
