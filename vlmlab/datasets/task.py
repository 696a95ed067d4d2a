"""A task: which classes, which pictures, and what a system may see of them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from vlmlab.datasets.dataset import Dataset
from vlmlab.datasets.image_set import ImageSet
from vlmlab.datasets.splits import at_most, base_new, few_shot
from vlmlab.errors import VlmlabError, unknown

if TYPE_CHECKING:
    from vlmlab.backbones.backbone import Backbone

SPLITS = ("all", "base", "new")

VAL_SHOTS = 4
"""At most so many validation pictures per class, and never more than there are shots (CoOp, arXiv 2109.01134)."""

SEES: dict[str, frozenset[str]] = {
    "zero-shot": frozenset(),
    "test-time": frozenset(),
    "training-free": frozenset({"support", "val"}),
    "few-shot": frozenset({"support", "val"}),
    "supervised": frozenset({"support", "val"}),
    "unsupervised": frozenset({"unlabelled"}),
    "transductive": frozenset({"support", "val"}),
}
"""Setup of a system -> the pictures that it may look at before it is measured. Test pictures are in none: a
transductive system meets them when it predicts, all together and without labels."""


class Task:
    """K-shot recognition among the classes of a dataset, or among its base or new ones.

    Attributes:
        classes: names, in the order of the labels 0 to C-1 of every picture set of the task.
        templates: sentences around them; the first is the one to use alone.
        shots, seed, split: as given.
        backbone, dataset: as given.
    """

    def __init__(
        self, backbone: Backbone | None, dataset: Dataset, shots: int = 16, seed: int = 0, split: str = "all"
    ) -> None:
        """Draw the support set.

        Args:
            backbone: what the systems of this task run on; carried along, not used here.
            dataset: where classes and pictures come from.
            shots: labelled pictures per class, 0 for none.
            seed: of the choice of support and validation pictures, and of training.
            split: "all" classes; "base" or "new" ones: CoCoOp's halves (arXiv 2203.05557), or the dataset's own novel
                categories where it names some.

        Raises:
            VlmlabError: an unknown split, too few classes to halve, or more shots than the smallest class has.
        """
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        self.backbone, self.dataset, self.shots, self.seed, self.split = backbone, dataset, shots, seed, split
        self._chosen = chosen(dataset, split)
        self.classes = [dataset.classes[c] for c in self._chosen]
        self.templates = list(dataset.templates)
        self._forbidden: dict[str, str] = {}
        self._train = self._of(dataset.train)
        picked = few_shot(self._train, shots, seed, self.classes)
        self._support = self._train.subset(picked)
        val = self._of(dataset.val)
        if not len(val):
            # A folder without validation pictures: those training pictures that the support leaves over serve.
            taken = set(picked.tolist())
            val = self._train.subset([i for i in range(len(self._train)) if i not in taken])
        self._val = val.subset(at_most(val, min(shots, VAL_SHOTS), seed))
        self._test = self._of(dataset.test)

    @property
    def support(self) -> ImageSet:
        """`shots` labelled pictures of every class: what is learned from."""
        return self._allowed("support")

    @property
    def val(self) -> ImageSet:
        """Up to min(shots, 4) pictures of every class to choose settings on; none of them is in the support or test."""
        return self._allowed("val")

    @property
    def unlabelled(self) -> ImageSet:
        """The training pictures of these classes with their labels hidden: what an unsupervised system may see."""
        return self._allowed("unlabelled")

    @property
    def test(self) -> ImageSet:
        """The pictures to be measured on; for `evaluate` only."""
        return self._allowed("test")

    def seen_by(self, setup: str) -> Task:
        """The task as a system of this setup may see it; whatever else it asks for raises `VlmlabError`."""
        if setup not in SEES:
            raise unknown("setup", setup, SEES)
        seen = copy.copy(self)
        seen._forbidden = {what: setup for what in ("support", "val", "unlabelled", "test") if what not in SEES[setup]}
        return seen

    def for_classes(self, split: str, shots: int | None = None) -> Task:
        """The same dataset and seed on other classes: "all", "base" or "new"; as many shots, if none are given."""
        return Task(self.backbone, self.dataset, self.shots if shots is None else shots, self.seed, split)

    def __repr__(self) -> str:
        where = f"{self.dataset.name}, {len(self.classes)} classes ({self.split})"
        return f"Task({where}, {self.shots} shots, seed {self.seed})"

    def _of(self, images: ImageSet) -> ImageSet:
        return images if self.split == "all" else images.of_classes(self._chosen)

    def _allowed(self, what: str) -> ImageSet:
        if what in self._forbidden:
            raise VlmlabError(f"a {self._forbidden[what]} system may not look at the {what} pictures of its task")
        return self._train.unlabelled() if what == "unlabelled" else getattr(self, f"_{what}")


def chosen(dataset: Dataset, split: str) -> list[int]:
    """Class indices of a split: "all", "base" or "new"; `VlmlabError` if a half would have fewer than two classes."""
    every = list(range(len(dataset.classes)))
    if split == "all":
        return every
    if dataset.novel:
        new = [c for c in every if dataset.classes[c] in dataset.novel]
        base = [c for c in every if dataset.classes[c] not in dataset.novel]
    else:
        base, new = base_new(dataset.classes)
    if min(len(base), len(new)) < 2:
        raise VlmlabError(f"{dataset.name} has {len(every)} classes; base and new together need at least four")
    return base if split == "base" else new
