"""A task: which classes, which pictures, and what a system may see of them."""

from __future__ import annotations

from vlmlab.datasets.dataset import Dataset
from vlmlab.datasets.image_set import ImageSet
from vlmlab.datasets.splits import at_most, base_new, few_shot
from vlmlab.errors import VlmlabError, unknown

VALIDATION_SHOTS = 4


class Task:
    """K-shot classification among all classes of a dataset, or among its base or new half (CoCoOp's protocol).

    Attributes:
        classes, templates: names in the order of the labels, and the sentences around them.
        support: the labelled pictures to learn from: `shots` of every class.
        val: pictures to choose settings on, at most four per class, as in CoOp.
        test: pictures to be measured on; a system must not look at their labels.
        shots, seed, split: as given.
    """

    def __init__(self, backbone, dataset: Dataset, shots: int = 16, seed: int = 0, split: str = "all") -> None:
        """`split` is "all", "base" or "new".

        Raises `VlmlabError` for another split, too few classes to cut in halves, or more shots than a class has.
        """
        if split not in ("all", "base", "new"):
            raise unknown("split", split, ("all", "base", "new"))
        self.backbone, self.dataset, self.shots, self.seed, self.split = backbone, dataset, shots, seed, split
        every = list(range(len(dataset.classes)))
        base, new = base_new(dataset.classes)
        if split != "all" and len(new) < 2:
            raise VlmlabError(f"{dataset.name} has {len(every)} classes; base and new halves need at least four")
        self._chosen = {"all": every, "base": base, "new": new}[split]
        self.classes = [dataset.classes[c] for c in self._chosen]
        self.templates = list(dataset.templates)
        train = self._of(dataset.train)
        self.support: ImageSet = train.subset(few_shot(train, shots, seed, self.classes))
        val = self._of(dataset.val)
        self.val: ImageSet = val.subset(at_most(val, VALIDATION_SHOTS, seed))
        self.test: ImageSet = self._of(dataset.test)

    def _of(self, images: ImageSet) -> ImageSet:
        return images if self.split == "all" else images.of_classes(self._chosen)

    def unlabelled(self) -> ImageSet:
        """The training pictures of these classes without their labels: what an unsupervised system may see."""
        return self._of(self.dataset.train).unlabelled()

    def for_classes(self, split: str, shots: int = 0) -> Task:
        """The same dataset and seed on another half, by default without support."""
        return Task(self.backbone, self.dataset, shots, self.seed, split)

    def __repr__(self) -> str:
        where = f"{self.dataset.name}, {len(self.classes)} classes ({self.split})"
        return f"Task({where}, {self.shots} shots, seed {self.seed})"
