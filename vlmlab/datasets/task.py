"""A task: which classes, which images, and what a system may see of them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from vlmlab.datasets.captions import CaptionSet, noun_filter, read_captions, scene_captions
from vlmlab.datasets.dataset import Dataset
from vlmlab.datasets.hierarchy import Hierarchy, hierarchy_of, read_hierarchy
from vlmlab.datasets.image_set import ImageSet
from vlmlab.datasets.splits import at_most, base_new, few_shot, mislabelled
from vlmlab.errors import VlmlabError, unknown

if TYPE_CHECKING:
    from vlmlab.backbones.backbone import Backbone

SPLITS = ("all", "base", "new")

VAL_SHOTS = 4
"""At most so many validation images per class, and never more than there are shots (CoOp, arXiv 2109.01134)."""

SEES: dict[str, frozenset[str]] = {
    "zero-shot": frozenset(),
    "test-time": frozenset(),
    "training-free": frozenset({"support", "val"}),
    "few-shot": frozenset({"support", "val"}),
    "supervised": frozenset({"support", "val"}),
    "semi-supervised": frozenset({"support", "val", "unlabelled"}),
    "unsupervised": frozenset({"unlabelled"}),
    "transductive": frozenset({"support", "val"}),
    "text-only": frozenset({"captions"}),
    "open-vocabulary": frozenset({"train", "val", "unlabelled"}),
    "weakly supervised": frozenset({"train", "val", "unlabelled"}),
}
"""Setup of a system -> what it may look at before it is measured. An open-vocabulary system sees boxes and masks of base
classes only, in training and in validation images; a weakly supervised one sees which classes a training image shows, and
no boxes or masks but those of the validation images. Test images are in none: a transductive system meets
them when it predicts, all together and without labels. A text-only system reads captions and sees no image."""


LOOKS = ("support", "train", "val", "unlabelled", "captions", "test")

DENSE = ("open-vocabulary", "weakly supervised")
"""Setups that learn from all training images of a dataset with boxes or masks, and have no shots."""


class Task:
    """K-shot recognition among the classes of a dataset, or among its base or new ones.

    Attributes:
        classes: names, in the order of the labels 0 to C-1 of every image set of the task.
        templates: sentences around them; the first is the one to use alone.
        shots, seed, split, noise: as given.
        backbone, dataset: as given.
    """

    def __init__(
        self,
        backbone: Backbone | None,
        dataset: Dataset,
        shots: int = 16,
        seed: int = 0,
        split: str = "all",
        noise: float = 0.0,
    ) -> None:
        """Draw the support set.

        Args:
            backbone: what the systems of this task run on; carried along, not used here.
            dataset: where classes and images come from.
            shots: labelled images per class, 0 for none.
            seed: of the choice of support and validation images, and of training.
            split: "all" classes; "base" or "new" ones: CoCoOp's halves (arXiv 2203.05557), or the dataset's own novel
                categories where it names some.
            noise: share of the support of every class, 0 to 1, that bears the label of another class, drawn by the
                seed; what prompts learn from such labels is less wrong than they are (UPL, arXiv 2204.03649).

        Raises:
            VlmlabError: an unknown split, too few classes to halve, or more shots than the smallest class has.
        """
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        self.backbone, self.dataset, self.shots, self.seed, self.split = backbone, dataset, shots, seed, split
        self.noise = noise
        self._chosen = chosen(dataset, split)
        self.classes = [dataset.classes[c] for c in self._chosen]
        self.templates = list(dataset.templates)
        self._forbidden: dict[str, str] = {}
        self._train = self._of(dataset.train)
        picked = few_shot(self._train, shots, seed, self.classes)
        self._support = self._train.subset(picked)
        if noise:
            self._support = self._support.relabelled(mislabelled(self._support.labels, len(self.classes), noise, seed))
        val = self._of(dataset.val)
        if not len(val):
            # A folder without validation images: those training images that the support leaves over serve.
            taken = set(picked.tolist())
            val = self._train.subset([i for i in range(len(self._train)) if i not in taken])
        self._val = val.subset(at_most(val, min(shots, VAL_SHOTS), seed))
        self._test = self._of(dataset.test)
        self._setup = ""

    @property
    def support(self) -> ImageSet:
        """`shots` labelled images of every class: what is learned from."""
        return self._allowed("support")

    @property
    def train(self) -> ImageSet:
        """All training images, with what the setup grants: see `SEES`."""
        whole = self._allowed("train")
        return whole.without_truth() if self._setup == "weakly supervised" else self._granted(whole)

    @property
    def base(self) -> list[int]:
        """Class indices whose boxes and masks an open-vocabulary system may learn from, in the order of `classes`."""
        new = set(self.new)
        return [c for c in range(len(self.classes)) if c not in new]

    @property
    def new(self) -> list[int]:
        """Class indices of which no box or mask is granted: the dataset's novel ones, or CoCoOp's second half."""
        names = {self.dataset.classes[c] for c in chosen(self.dataset, "new")}
        return [c for c, name in enumerate(self.classes) if name in names]

    @property
    def groups(self) -> dict[str, list[int]]:
        """The class indices of every group that dense metrics tell apart: "base", "new", and what the dataset declares, such as
        "rare"; a group without a class of the task is left out."""
        declared = {
            group: [c for c, name in enumerate(self.classes) if name in set(names)]
            for group, names in self.dataset.groups.items()
        }
        return {group: own for group, own in ({"base": self.base, "new": self.new} | declared).items() if own}

    @property
    def grounds(self) -> list[int]:
        """Class indices of stuff (sky, grass, ...), which things stand on."""
        return [c for c, name in enumerate(self.classes) if name in self.dataset.grounds]

    @property
    def val(self) -> ImageSet:
        """Up to min(shots, 4) images of every class to choose settings on; none of them is in the support or test.

        For an open-vocabulary or weakly supervised system: all validation images, the former's with base classes only.
        """
        own = self._allowed("val")
        if self._setup not in DENSE:
            return own
        whole = self._of(self.dataset.val)
        return self._granted(whole) if self._setup == "open-vocabulary" else whole

    @property
    def unlabelled(self) -> ImageSet:
        """The training images of these classes with their labels hidden: what an unsupervised system may see."""
        return self._allowed("unlabelled")

    @property
    def test(self) -> ImageSet:
        """The images to be measured on; for `evaluate` only."""
        return self._allowed("test")

    @property
    def tuning(self) -> ImageSet:
        """All validation images of the dataset: what settings are chosen on, for `vlmlab tune` and no system.

        `VlmlabError` where the dataset has none of its own.
        """
        self._refuse("test")  # no system may measure itself on them
        images = self._of(self.dataset.val)
        if not len(images):
            raise VlmlabError(
                f"{self.dataset.name} has no validation images; add a folder val/, or choose another dataset"
            )
        return images

    def captions(self, count: int, source: str = "") -> CaptionSet:
        """Sentences with the classes that a noun filter finds in them: what a text-only system learns from.

        They are captions of `count` scenes with objects of these classes, which are not painted, or the lines of the
        text file `source`; a sentence that names none of the classes is left out.
        Raises `VlmlabError` if there is no such file, no scene of a class, or no sentence that names a class.
        """
        self._refuse("captions")
        sentences = read_captions(source) if source else scene_captions(self.classes, count, self.seed)
        return noun_filter(sentences, self.classes)

    def hierarchy(self, source: str = "") -> Hierarchy:
        """The tree above these classes: the dataset's own, or that of the JSON file `source` over all its classes.

        Raises `VlmlabError` if there is none, or if it is no tree with the dataset's classes for leaves.
        """
        whole = read_hierarchy(source, self.dataset.classes) if source else hierarchy_of(self.dataset)
        return whole if self.split == "all" else whole.of(self.classes)

    def seen_by(self, setup: str) -> Task:
        """The task as a system of this setup may see it; whatever else it asks for raises `VlmlabError`."""
        if setup not in SEES:
            raise unknown("setup", setup, SEES)
        seen = copy.copy(self)
        seen._setup = setup
        seen._forbidden = {what: setup for what in LOOKS if what not in SEES[setup]}
        return seen

    def for_classes(self, split: str, shots: int | None = None) -> Task:
        """The same dataset and seed on other classes: "all", "base" or "new"; as many shots, if none are given."""
        shots = self.shots if shots is None else shots
        return Task(self.backbone, self.dataset, shots, self.seed, split, self.noise)

    def __repr__(self) -> str:
        where = f"{self.dataset.name}, {len(self.classes)} classes ({self.split})"
        return f"Task({where}, {self.shots} shots, seed {self.seed})"

    def _of(self, images: ImageSet) -> ImageSet:
        return images if self.split == "all" else images.of_classes(self._chosen)

    def _granted(self, images: ImageSet) -> ImageSet:
        return images.granting(self.base)

    def _refuse(self, what: str) -> None:
        """Raises `VlmlabError` if the setup forbids it."""
        if what in self._forbidden:
            pictures = "" if what == "captions" else " images"
            raise VlmlabError(f"a {self._forbidden[what]} system may not look at the {what}{pictures} of its task")

    def _allowed(self, what: str) -> ImageSet:
        self._refuse(what)
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
