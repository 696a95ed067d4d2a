"""Which datasets there are, as plain facts: imports neither torch nor numpy, so that a listing answers at once.

Counts of MicroWorld's sets, digits and photographs are those of `load_dataset` (a test compares them). Counts of the
standard sets are those of CoOp's split files (arXiv 2109.01134, appendix); CIFAR, VOC and COCO have their own.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass

from vlmlab.errors import VlmlabError, unknown

CLASSIFICATION = ("classification",)
DENSE = ("multi-label classification", "detection", "segmentation")


@dataclass(frozen=True)
class DatasetInfo:
    """One dataset.

    Attributes:
        name: what `load_dataset` and `--dataset` take.
        classes: number of classes.
        splits: split -> number of images.
        tasks: what its ground truth can measure.
        mirrors: which dataset of the field it stands for, or what it is.
        offline: whether it needs no download.
        gap: what separates its images or names from what the embedded backbones were pretrained on.
    """

    name: str
    classes: int
    splits: dict[str, int]
    tasks: tuple[str, ...]
    mirrors: str
    offline: bool
    gap: str = ""


def _drawn(name: str, classes: int, mirrors: str, gap: str) -> DatasetInfo:
    return DatasetInfo(name, classes, drawn_counts(classes), CLASSIFICATION, mirrors, True, gap)


def _tableaux(name: str, gap: str, train: int = 600) -> DatasetInfo:
    return DatasetInfo(name, 47, {"train": train, "val": 150, "test": 800}, DENSE, "COCO", True, gap)


TRAIN_PER_CLASS, VAL_PER_CLASS = 24, 8
"""More than the 16 that few-shot learning takes at most, so that seeds still differ at 16 shots; 8 >= CoOp's 4."""
TEST_TOTAL = 800
"""At least this many test images: near 50 %, one standard error is then below 1.8 points."""


def drawn_counts(classes: int) -> dict[str, int]:
    """Images per split of a drawn dataset; every class has equally many."""
    return {
        "train": TRAIN_PER_CLASS * classes,
        "val": VAL_PER_CLASS * classes,
        "test": -(-TEST_TOTAL // classes) * classes,
    }


COMPOSED_TEST = 30
"""Test images per class of a composed set (`vlmlab.datasets.composed`)."""


def _composed(name: str, classes: int, mirrors: str, gap: str) -> DatasetInfo:
    counts = drawn_counts(classes) | {"test": COMPOSED_TEST * classes}
    return DatasetInfo(name, classes, counts, CLASSIFICATION, mirrors, True, gap)


def _standard(
    name: str, classes: int, train: int, val: int, test: int, mirrors: str, tasks: tuple[str, ...] = CLASSIFICATION
) -> DatasetInfo:
    return DatasetInfo(name, classes, {"train": train, "val": val, "test": test}, tasks, mirrors, False)


DATASETS: tuple[DatasetInfo, ...] = (
    _drawn("objects", 54, "ImageNet", "None: names and style of pretraining; seven of the names are rare there."),
    _drawn("objects-v2", 54, "ImageNetV2", "The same classes again: smaller, off centre, leaning, on busy ground."),
    _drawn("objects-sketch", 54, "ImageNet-Sketch", "The scenes of objects as pencil sketches, rare in pretraining."),
    _drawn("objects-silhouette", 54, "ImageNet-R", "The scenes of objects as silhouettes: only the outline is left."),
    _drawn("objects-mosaic", 54, "ImageNet-R", "The scenes of objects in 16 by 16 tiles: detail goes, colour stays."),
    _drawn("objects-unnamed", 12, "rare concepts", "Names that no pretraining caption says; five were never shown."),
    _drawn("creatures", 12, "OxfordPets", "Fine-grained birds: captions mostly say 'bird' and describe the plumage."),
    _drawn("flowers", 12, "Flowers102", "Fine-grained: captions mostly say 'flower' and describe the petals."),
    _drawn("vehicles", 12, "StanfordCars", "Some: one caption in three gives the model's name."),
    _drawn("food", 10, "Food101", "Some: one caption in three names the dish."),
    _drawn("textures", 10, "DTD", "Adjectives as names; one caption in three says them."),
    _drawn("aerial", 10, "EuroSAT", "Land from above: a rare viewpoint with kinds that are almost never named."),
    _drawn("scenes", 10, "SUN397", "Some: one caption in four names the place."),
    _drawn("actions", 10, "UCF101", "Verbs as names; one caption in five says them."),
    DatasetInfo(
        "digits", 10, {"train": 480, "val": 160, "test": 1157}, CLASSIFICATION, "MNIST", True,
        "Real handwriting (scikit-learn's, 8 by 8 pixels); pretraining shows neither writing nor these names.",
    ),
    _composed("scattered", 48, "MIT-States", "Colour, thing and ground at once, which captions seldom say."),
    _composed("media", 50, "ImageNet-R", "Photos, drawings, silhouettes, sketches and mosaics of small things."),
    _composed("kinds", 46, "iNaturalist", "Birds, flowers, vehicles and dishes in noise, blur and haze."),
    _composed("weather", 30, "ACDC", "Places at night, in fog, snow and rain, which pretraining never shows."),
    _composed("land", 28, "EuroSAT", "Land from above in four seasons, whose names pretraining never says."),
    _composed("lit", 40, "Food101", "Dishes in coloured light, which pretraining never shows."),
    _composed("neon", 48, "StanfordCars", "Vehicles in coloured light, which pretraining never shows."),
    _composed("renditions", 48, "ImageNet-R", "Flowers as mosaics, sketches and negatives, which pretraining never shows."),
    _composed("deeds", 40, "UCF101", "People acting at night, in fog and snow, which pretraining never shows."),
    _composed("objects-corrupted", 54, "ImageNet-C", "The scenes of objects with ten corruptions in five severities."),
    DatasetInfo(
        "tableau", 47, {"train": 600, "val": 150, "test": 800}, DENSE, "COCO", True,
        "Two to four objects in a scene; twelve categories are novel: known by name, kept out of boxes and masks.",
    ),
    _tableaux("tableau-paired", "Some things never come without a companion, others stand on one ground alone."),
    _tableaux("tableau-cluttered", "Five to eight small objects that overlap, many of them elongated."),
    _tableaux("tableau-silhouette", "The scenes of tableau as black shapes, while the templates say photo."),
    _tableaux("tableau-many", "None but more: 2,400 training scenes, the first 600 of them tableau's.", train=2400),
    _tableaux("tableau-128", "The scenes of tableau at 128 pixels, whatever the backbone takes."),
    DatasetInfo(
        "photographs", 17, {"train": 0, "val": 0, "test": 17}, CLASSIFICATION,
        "photographs of scikit-image and scikit-learn", True,
        "Real photographs, one of a kind; to look at, not to learn from.",
    ),
    _standard("caltech101", 100, 4128, 1649, 2465, "Caltech-101, objects"),
    _standard("oxford-pets", 37, 2944, 736, 3669, "Oxford-IIIT Pet, breeds of cats and dogs"),
    _standard("stanford-cars", 196, 6509, 1635, 8041, "Stanford Cars, models"),
    _standard("flowers102", 102, 4093, 1633, 2463, "Oxford Flowers 102"),
    _standard("food101", 101, 50500, 20200, 30300, "Food-101, dishes"),
    _standard("fgvc-aircraft", 100, 3334, 3333, 3333, "FGVC-Aircraft, variants"),
    _standard("sun397", 397, 15880, 3970, 19850, "SUN397, scenes"),
    _standard("dtd", 47, 2820, 1128, 1692, "Describable Textures"),
    _standard("eurosat", 10, 13500, 5400, 8100, "EuroSAT, land use from a satellite"),
    _standard("cifar10", 10, 40000, 10000, 10000, "CIFAR-10"),
    _standard("cifar100", 100, 40000, 10000, 10000, "CIFAR-100"),
    _standard("voc2007", 20, 2501, 2510, 4952, "Pascal VOC 2007", DENSE[:2]),
    _standard("voc2012", 20, 1318, 146, 1449, "Pascal VOC 2012, the images with masks", DENSE),
    _standard("coco2014", 80, 74504, 8279, 40504, "COCO 2014", DENSE),
    _standard("coco2017", 80, 106458, 11829, 5000, "COCO 2017", DENSE),
    _standard("coco", 65, 106458, 11829, 5000, "COCO 2017 of OVR-CNN: 48 base, 17 novel classes", DENSE),
    _standard("lvis", 1203, 90153, 10017, 19809, "LVIS v1: 866 base, 337 novel (rare) classes", DENSE[1:2]),
    _standard("pascal-context", 59, 4498, 500, 5105, "PASCAL Context: 49 base, 10 novel classes", DENSE[2:]),
    _standard("coco-stuff", 171, 106458, 11829, 5000, "COCO-Stuff: 156 base, 15 novel classes", DENSE[2:]),
    _standard("ade20k-150", 150, 18189, 2021, 2000, "ADE20K scene parsing", DENSE[2:]),
    _standard("ade20k-847", 847, 23017, 2557, 2000, "ADE20K full: 572 base, 275 novel (rare) classes", DENSE[2:]),
    _standard("cityscapes", 19, 2677, 298, 500, "Cityscapes", DENSE[2:]),
)  # fmt: skip

BY_NAME: dict[str, DatasetInfo] = {info.name: info for info in DATASETS}


def canonical(name: str) -> str:
    """The listed name that is meant: "Objects_V2" is objects-v2; any other name as it is."""
    listed = name.lower().replace("_", "-")
    return listed if listed in BY_NAME else name


def is_path(name: str) -> bool:
    """Whether a dataset is named by its folder and not by a listed name, in whatever spelling.

    "images/cats" and "./cats" are folders, and so is "cats" if it exists and no dataset is called that.
    """
    if not name or canonical(name) in BY_NAME:
        return False
    return "/" in name or "\\" in name or name.startswith((".", "~")) or os.path.exists(name)


def check_dataset(name: str) -> None:
    """Raises `VlmlabError` if `name` is neither a listed dataset nor a folder (which may still hold no images)."""
    if canonical(name) not in BY_NAME and not is_path(name):
        text = str(unknown("dataset", name, BY_NAME)).removesuffix("?")
        raise VlmlabError(f"{text}, or the path of a folder of your own, such as ./{name}")


LATER_VERSIONS = ("objects-corrupted",)
"""Versions that came after split "shift" and its published results: they are asked by name (`--targets`), so that the mean over
the other versions means what it meant."""


def versions(name: str) -> tuple[str, ...]:
    """The embedded datasets that show the classes of `name` otherwise, such as objects-sketch of objects.

    None of a dataset with boxes: what is measured on one of tableau's relatives is learned there, too.
    """
    name = canonical(name)
    own = BY_NAME.get(name)
    return tuple(
        info.name
        for info in DATASETS
        if own
        and own.tasks == CLASSIFICATION
        and info.offline
        and info.name.startswith(f"{name}-")
        and info.classes == own.classes
    )


def shifted_versions(name: str) -> tuple[str, ...]:
    """Those of `versions` that split "shift" measures."""
    return tuple(version for version in versions(name) if version not in LATER_VERSIONS)


def relative(name: str) -> bool:
    """Whether an embedded dataset is one of tableau's relatives, which a sweep takes only when it is asked for."""
    return name.startswith("tableau-")


def warn_of_namesake(name: str) -> None:
    """Warn if a dataset is named like a folder in the working directory, which is then not the one that is used."""
    if canonical(name) in BY_NAME and os.path.isdir(name):
        warnings.warn(
            f"{name} is vlmlab's dataset of that name; the folder of images here is named ./{name}", stacklevel=2
        )
