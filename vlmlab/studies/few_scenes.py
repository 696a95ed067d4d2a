"""A few scenes of `tableau`, for whoever has no minutes: detectors that learn and are measured within seconds.

They are the first scenes of the dataset; what is frozen about them comes from the same cache as everywhere else. Chapters
and panels share what has been learned here, once per process.

Dimensions: N images, n detections of a class, C classes.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vlmlab.datasets import Dataset, Task
from vlmlab.errors import VlmlabError
from vlmlab.learning.dense import AT_ONCE, MOST
from vlmlab.learning.evaluate import evaluate
from vlmlab.learning.fit import fit
from vlmlab.learning.mistakes import first_hits
from vlmlab.methods.dense.detections import Detections
from vlmlab.methods.dense.detector import Detector
from vlmlab.methods.method import Batch
from vlmlab.randomness import LocalRandom
from vlmlab.registry import load_system, registry
from vlmlab.studies.run import Latest, dataset_for, shared_bank

BACKBONE = "micro-vit"
_learned = Latest(16)


@functools.lru_cache(maxsize=8)
def scenes(train: int = 600, test: int = 800, dataset: str = "tableau") -> Dataset:
    """The first `train` training and `test` test images of a dataset with boxes; all, if it has fewer.

    Raises `VlmlabError` for a dataset without boxes.
    """
    whole = dataset_for(shared_bank(BACKBONE), dataset)
    if not whole.train.dense:
        raise VlmlabError(f"{dataset} has no boxes; choose tableau, which does")
    most = {"train": train, "test": test}
    parts = {name: getattr(whole, name) for name in most}
    return dataclasses.replace(
        whole, **{name: part.subset(range(min(most[name], len(part)))) for name, part in parts.items()}
    )


def task_of(train: int = 600, test: int = 800, seed: int = 1, dataset: str = "tableau") -> Task:
    """Detection among all classes of `scenes`."""
    return Task(shared_bank(BACKBONE).backbone, scenes(train, test, dataset), 0, seed)


@dataclasses.dataclass
class Learned:
    """A detector that has learned from a few scenes.

    Attributes:
        method: the detector. task: what it learned from, and is measured on.
        cpu_seconds: of learning, on the processor. losses: of every step.
    """

    method: Detector
    task: Task
    cpu_seconds: float
    losses: list[float]

    def ap50(self, test: int = 800) -> dict[str, float]:
        """{"base", "new", "all"}: AP50 in percent on the first `test` test images."""
        images = self.task.test.subset(range(min(test, len(self.task.test))))
        return ap50(found(self.method, images), images, self.task)

    def metrics(self, test: int = 800) -> dict[str, float]:
        """AP50, AP and the ceilings on the first `test` test images, by group, in percent; see `learning.dense.detection`."""
        task = self.task
        images = task.test.subset(range(min(test, len(task.test))))
        groups = {"base": task.base, "new": task.new}
        measured = evaluate(self.method, images, shared_bank(BACKBONE), task.seed, groups)
        return {name: value for name, value in measured.items() if not isinstance(value, dict)}


@torch.no_grad()
def found(method: Detector, images) -> list[Detections]:
    """What a detector finds in every image of a set, at most 100 boxes of an image, on the CPU."""
    rows = []
    for start in range(0, len(images), AT_ONCE):
        at = range(start, min(start + AT_ONCE, len(images)))
        pixels, frames = method.framed([images.images(i) for i in at])
        detected = method.detect(Batch(images=pixels, index=torch.tensor(at)))
        rows += [one.cpu().back(frame).surest(MOST) for one, frame in zip(detected, frames, strict=True)]
    return rows


def ap50(detections: Sequence[Detections], images, task: Task) -> dict[str, float]:
    """{"base", "new", "all"}: AP50 in percent, the mean over the classes of a group that the images show.

    The number that `learning.dense.detection` gives, without COCO's other thresholds, which take most of its time.
    """
    truths = [images.truth(i) for i in range(len(images))]
    scores = torch.cat([one.scores for one in detections])
    labels = torch.cat([one.labels for one in detections])
    hits = torch.cat([first_hits(one, truth) for one, truth in zip(detections, truths, strict=True)])
    objects = torch.cat([truth.labels for truth in truths]).bincount(minlength=len(task.classes))
    per_class = torch.full((len(task.classes),), torch.nan)
    for c in objects.nonzero().flatten().tolist():
        own = labels == c
        per_class[c] = 100 * average_precision(scores[own], hits[own], int(objects[c]))
    groups = {"base": task.base, "new": task.new, "all": range(len(task.classes))}
    return {name: float(per_class[list(members)].nanmean()) for name, members in groups.items()}


def average_precision(scores: Tensor, hits: Tensor, objects: int) -> float:
    """COCO's, 0 to 1: at 101 recall levels the best precision at this recall or a higher one, and the mean of these.

    Args:
        scores: [n]. hits: [n] bool. objects: how many there are.
    """
    if not len(scores):
        return 0.0
    right = hits[scores.argsort(descending=True, stable=True)].double().cumsum(0)
    recall, precision = right / objects, right / torch.arange(1, len(right) + 1)
    best = precision.flip(0).cummax(0).values.flip(0)
    place = torch.searchsorted(recall, torch.linspace(0, 1, 101, dtype=torch.float64))
    return float(torch.where(place < len(best), best[place.clamp_max(len(best) - 1)], 0.0).mean())


def prepared(system: str, task: Task, **settings) -> Detector:
    """A detector before its first step, with what it has made of the training images (regions, pseudo labels)."""
    bank, kind = shared_bank(BACKBONE), load_system(system)
    method = kind(bank.backbone, kind.configure(bank.backbone, **settings))
    method.bank = bank
    with LocalRandom(task.seed):
        method.prepare(task.seen_by(kind.info.setup))
    return method


def learned(
    system: str,
    train: int = 600,
    seed: int = 1,
    dataset: str = "tableau",
    on_step: Callable[[int, int, float], None] | None = None,
    **settings,
) -> Learned:
    """A detector fitted to the first `train` scenes: once per process for the same arguments, always again with `on_step`.

    Whoever asks it for other words takes a `twin`. Raises `VlmlabError` for a system that does not detect, and for settings that
    cannot be.
    """

    def make() -> Learned:
        bank, kind = shared_bank(BACKBONE), load_system(system)
        if not issubclass(kind, Detector):
            raise VlmlabError(f"{system} finds no boxes; choose one of {', '.join(detectors())}")
        task = task_of(train, seed=seed, dataset=dataset)
        method = kind(bank.backbone, kind.configure(bank.backbone, **settings))
        record = fit(method, task.seen_by(kind.info.setup), on_step, bank=bank)
        return Learned(method, task, record.cpu_seconds, list(record.losses))

    if on_step:
        return make()
    return _learned.get((system, train, seed, dataset, *sorted(settings.items())), make)


def twin(method: Detector) -> Detector:
    """The same detector with the same weights, whose words and settings can be changed without changing the first one's."""
    own = copy.copy(method)
    for name in ("_parameters", "_buffers", "_modules"):
        own.__dict__[name] = dict(own.__dict__[name])
    own.config = copy.copy(method.config)
    return own


def detectors() -> list[str]:
    """Keys of the systems that detect."""
    return [key for key, info in registry().items() if "detection" in info.tasks]
