"""Several few-shot tasks at once: a target and its companions.

Tasks that have something in common can be learned together (SoftCPT, arXiv 2208.13474) or one after the other (MVLPT,
arXiv 2211.11720). Each of them keeps its own label space: class 3 of flowers and class 3 of creatures have the same label,
and what tells them apart is the number of the task, which travels with every image (`JointSet.tasks`, `Batch.tasks`).
A system is judged on the target alone, so that its figures stand beside those of any other.

Letters: N images, T tasks.
"""

from __future__ import annotations

import hashlib
import typing
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import LongTensor

from vlmlab.datasets.dataset import Dataset
from vlmlab.datasets.image_set import ImageSet, Pixels
from vlmlab.datasets.task import Task
from vlmlab.errors import VlmlabError

KINDS: dict[str, tuple[str, ...]] = {
    "fine-grained": ("creatures", "flowers", "vehicles", "food"),
    "places, acts and signs": ("aerial", "scenes", "textures", "actions", "digits"),
    "objects": ("objects", "objects-unnamed"),
    "objects, coarsely": ("objects-v2", "objects-mosaic"),
    "objects in outline": ("objects-sketch", "objects-silhouette"),
    "combinations": ("scattered", "media", "lit", "neon", "renditions"),
    "seen badly": ("kinds", "weather", "land", "deeds", "objects-corrupted"),
    "fine-grained photographs": ("oxford-pets", "flowers102", "stanford-cars", "food101", "fgvc-aircraft"),
    "photographs of places and textures": ("sun397", "eurosat", "dtd"),
    "photographs of objects": ("caltech101", "cifar10", "cifar100"),
}
"""Which datasets are related. Nobody has measured this: they are put together by what they show. None is a shifted version of
another, so that a system which is judged under shift has not learned from the shifted images."""

HELP = "datasets to learn from besides the target: 'related', 'alone', or names with commas between"


class JointSet(ImageSet):
    """Images of several tasks as one set; `labels` [N] count the classes of each image's own task.

    Attributes:
        tasks: LongTensor [N], the number of the task that each image belongs to.
    """

    def __init__(self, parts: dict[int, ImageSet]) -> None:
        """Join the image sets of tasks by their numbers; the images stay where they are."""
        sets = list(parts.values())
        ids = [f"{number}/{name}" for number, part in parts.items() for name in part.ids]
        super().__init__(_Joined(sets), torch.cat([part.labels for part in sets]), ids)
        self.tasks: LongTensor = torch.repeat_interleave(
            torch.tensor(list(parts)), torch.tensor([len(part) for part in sets])
        )


class _Joined:
    """Images of several sets, counted through."""

    def __init__(self, sets: Sequence[ImageSet]) -> None:
        self.sets = sets
        self.first = np.cumsum([0, *(len(part) for part in sets)])
        files = [part.files() for part in sets]
        self.paths = None if None in files else [path for part in files for path in part]

    def identity(self) -> str:
        text = "\n".join(part.fingerprint() for part in self.sets)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def read(self, positions: Sequence[int]) -> list[Pixels]:
        owner = np.searchsorted(self.first, positions, side="right") - 1
        return [self.sets[k].images(int(p - self.first[k])) for k, p in zip(owner, positions, strict=True)]


class MultiTask(Task):
    """A target task with companions: everything that a `Task` has is the target's.

    Attributes:
        companions: the other tasks.
    """

    def __init__(self, target: Task, companions: Sequence[Dataset], shots: int | None = None) -> None:
        """Draw the companions' support sets.

        Args:
            target: the task to be judged on.
            companions: the other datasets. They have the target's seed and split: beside base classes no class of a
                companion's new half is seen either, since datasets may share classes.
            shots: labelled images per class of the companions; as many as of the target, if None.

        Raises:
            VlmlabError: as for `Task`; a companion is the target, is named twice, or has no labels of one class an image.
        """
        vars(self).update(vars(target))
        taken = {target.dataset.name}
        for other in (target.dataset, *companions):
            if "classification" not in other.tasks or not len(other.train):
                raise VlmlabError(
                    f"{other.name} cannot be learned together with other datasets: it has no training images of one "
                    "class each; choose others, or companions=alone"
                )
            if other is not target.dataset and other.name in taken:
                raise VlmlabError(f"{other.name} is there twice; name every dataset once, and the target not at all")
            taken.add(other.name)
        each = target.shots if shots is None else shots
        self.companions = [Task(target.backbone, other, each, target.seed, target.split) for other in companions]

    @property
    def tasks(self) -> list[Task]:
        """All T tasks, the target first: their places are their numbers."""
        return [self, *self.companions]

    def together(self) -> JointSet:
        """The support images of all tasks."""
        return JointSet({number: task.support for number, task in enumerate(self.tasks)})

    def sources(self) -> JointSet:
        """The support images of the companions; `VlmlabError` if there are none."""
        if not self.companions:
            raise VlmlabError("a source stage needs at least one companion")
        return JointSet({number: task.support for number, task in enumerate(self.tasks) if number})

    def seen_by(self, setup: str) -> MultiTask:
        """As for `Task`; the companions are restricted alike."""
        seen = typing.cast(MultiTask, super().seen_by(setup))  # a copy of itself
        seen.companions = [task.seen_by(setup) for task in self.companions]
        return seen

    def __repr__(self) -> str:
        return f"Multi{super().__repr__()} with {', '.join(t.dataset.name for t in self.companions) or 'no other'}"


def companions_of(dataset: str, wanted: str) -> list[str]:
    """The names of the companions of a dataset, from a setting: "related", "alone", or names with commas between.

    Raises `VlmlabError` if nothing is known to be related to the dataset.
    """
    if wanted == "alone":
        return []
    if wanted != "related":
        return [name.strip() for name in wanted.split(",") if name.strip()]
    for group in KINDS.values():
        if dataset in group:
            return [name for name in group if name != dataset]
    raise VlmlabError(
        f"no dataset is known to be related to {dataset}; name some with --set companions=NAME,NAME or learn alone with "
        "--set companions=alone"
    )


def with_companions(task: Task, config, load: Callable[[str], Dataset]) -> Task:
    """`task` with the companions that a system's Config asks for (settings `companions`, `companion_shots`).

    The task itself if the Config has no such setting, or asks for none. `load` gives a dataset by its name.
    """
    wanted = getattr(config, "companions", "alone")
    names = companions_of(task.dataset.name, wanted)
    if not names:
        return task
    return MultiTask(task, [load(name) for name in names], getattr(config, "companion_shots", None))
