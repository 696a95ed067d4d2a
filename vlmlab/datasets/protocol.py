"""Protocols: on which classes and images a system learns, on which it is judged, and what it may see on the way.

The same accuracy means nine different things under the nine protocols of the field; a table must say which it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlmlab.datasets.catalog import DATASETS, shifted_versions
from vlmlab.datasets.dataset import Dataset
from vlmlab.datasets.task import Task
from vlmlab.errors import VlmlabError
from vlmlab.registry import SystemInfo

if TYPE_CHECKING:
    from vlmlab.backbones.backbone import Backbone

NEEDS: dict[str, frozenset[str]] = {
    "zero-shot": frozenset(),
    "test-time": frozenset(),
    "training-free": frozenset(),
    "few-shot": frozenset({"labels"}),
    "supervised": frozenset({"labels"}),
    "semi-supervised": frozenset({"labels", "unlabelled images"}),
    "unsupervised": frozenset({"unlabelled images"}),
    "transductive": frozenset({"all test images at once"}),
    "text-only": frozenset({"captions"}),
    "open-vocabulary": frozenset({"boxes or masks of base classes"}),
    "weakly supervised": frozenset({"image labels"}),
}
"""Setup of a system -> what it cannot do without."""

Judged = dict[str, Task]


def unsolved(info: SystemInfo, dataset: Dataset) -> str | None:
    """Why a system has nothing to do on a dataset, as a sentence that names one where it has; None if they share a task."""
    if set(info.tasks) & set(dataset.tasks):
        return None
    able, known = ", ".join(info.tasks), ", ".join(dataset.tasks)
    suited = [d.name for d in DATASETS if d.offline and d.splits["train"] and set(info.tasks) & set(d.tasks)]
    return f"{info.key} does {able}; {dataset.name} has ground truth for {known}: choose {suited[0]}"


@dataclass(frozen=True)
class Protocol:
    """One way to ask how good a system is.

    Attributes:
        key, title: its names.
        learns: what a system learns from, in words.
        judged: what it is judged on, in words.
        offers: what a system may see beyond one test image at a time.
        paper: who introduced it in this form.
        judge: (learned task, source, targets) -> name -> the task whose test images are judged.
        learns_on: the classes that are learned, "all" or "base".
        targets: name of the source -> names of embedded datasets to be judged on, where it judges on others.
    """

    key: str
    title: str
    learns: str
    judged: str
    offers: frozenset[str]
    paper: str
    judge: Callable[[Task, Dataset, Sequence[Dataset]], Judged]
    learns_on: str = "all"
    targets: Callable[[str], Sequence[str]] = lambda source: ()

    def refusal(self, info: SystemInfo, dataset: Dataset | None = None) -> str | None:
        """Why this system (on this dataset) has no place in the protocol, as a sentence; None if it has one."""
        lacking = NEEDS[info.setup] - self.offers
        if lacking:
            missing = ", ".join(sorted(lacking))
            return f"{info.key} is {info.setup} and needs {missing}, which the {self.key} protocol does not show"
        return unsolved(info, dataset) if dataset is not None else None

    def tasks(
        self,
        backbone: Backbone | None,
        source: Dataset,
        targets: Sequence[Dataset] = (),
        shots: int = 16,
        seed: int = 0,
    ) -> tuple[Task, Judged]:
        """(the task to learn, name -> task to be judged on).

        Args:
            backbone: what the systems run on.
            source: the dataset to learn on.
            targets: the datasets to be judged on, for cross-dataset and domain-shift.
            shots, seed: of the support; a protocol that shows no labels takes no shots.

        Raises:
            VlmlabError: targets are missing, or have other classes where they must have the same.
        """
        shown = shots if "labels" in self.offers else 0
        learned = Task(backbone, source, shown, seed, self.learns_on)
        return learned, self.judge(learned, source, targets)


def _itself(learned: Task, source: Dataset, targets: Sequence[Dataset]) -> Judged:
    return {source.name: learned}


def _both_halves(learned: Task, source: Dataset, targets: Sequence[Dataset]) -> Judged:
    return {"base": learned, "new": learned.for_classes("new", shots=0)}


def _other_datasets(learned: Task, source: Dataset, targets: Sequence[Dataset]) -> Judged:
    if not targets:
        raise VlmlabError("this protocol judges on other datasets than it learns on; name at least one target")
    return {d.name: Task(learned.backbone, d, 0, learned.seed) for d in (source, *targets)}


def _other_pictures(learned: Task, source: Dataset, targets: Sequence[Dataset]) -> Judged:
    for target in targets:
        if target.classes != source.classes:
            raise VlmlabError(
                f"domain shift keeps the classes, but {target.name} has others than {source.name}; use cross-dataset"
            )
    return _other_datasets(learned, source, targets)


BOXES, IMAGE_LABELS = frozenset({"boxes or masks of base classes"}), frozenset({"image labels"})
LABELS, UNLABELLED = frozenset({"labels"}), frozenset({"unlabelled images"})
TOGETHER, CAPTIONS = frozenset({"all test images at once"}), frozenset({"captions"})

PROTOCOLS: dict[str, Protocol] = {
    p.key: p
    for p in (
        Protocol(
            "few-shot", "Few-shot", "K labelled images of every class", "test images of the same classes",
            LABELS, "CoOp, arXiv 2109.01134", _itself,
        ),
        Protocol(
            "base-to-new", "Base to new", "K labelled images of the base classes",
            "test images of base and of new classes, each among its own",
            LABELS, "CoCoOp, arXiv 2203.05557", _both_halves, learns_on="base",
        ),
        Protocol(
            "cross-dataset", "Cross-dataset", "K labelled images of every class of one dataset",
            "test images of other datasets, with their own classes",
            LABELS, "CoCoOp, arXiv 2203.05557", _other_datasets,
            targets=lambda source: ("digits" if source != "digits" else "objects", "textures"),
        ),
        Protocol(
            "domain-shift", "Domain shift", "K labelled images of every class",
            "images of the same classes in another style", LABELS, "CoOp, arXiv 2109.01134", _other_pictures,
            targets=lambda source: shifted_versions(source) or (source,),
        ),
        Protocol(
            "test-time", "Test time", "nothing beforehand; each test image alone when its turn comes",
            "that image", frozenset(), "TPT, arXiv 2209.07511", _itself,
        ),
        Protocol(
            "unsupervised", "Unsupervised", "training images without labels, and the class names",
            "test images of the same classes", UNLABELLED, "UPL, arXiv 2204.03649", _itself,
        ),
        Protocol(
            "semi-supervised", "Semi-supervised",
            "K labelled images of every class, and the other training images without labels",
            "test images of the same classes", LABELS | UNLABELLED, "SVL-Adapter, arXiv 2210.03794", _itself,
        ),
        Protocol(
            "transductive", "Transductive", "nothing beforehand; the class names",
            "all test images together, without labels: each prediction may use the others",
            TOGETHER, "TransCLIP, arXiv 2406.01837", _itself,
        ),
        Protocol(
            "open-vocabulary", "Open vocabulary", "training images with boxes or masks of base classes",
            "objects or pixels of base and new classes, all names competing",
            BOXES, "ViLD, arXiv 2104.13921", _itself,
        ),
        Protocol(
            "weak-supervision", "Weak supervision", "training images with the names of what they show",
            "pixels of the same classes", IMAGE_LABELS, "CLIP-ES, arXiv 2212.09506", _itself,
        ),
        Protocol(
            "text-only", "Text only", "captions that name the classes; no image",
            "test images of the same classes", CAPTIONS, "TaI-DPT, arXiv 2211.12739", _itself,
        ),
    )
}  # fmt: skip
"""The field's protocols by key."""
