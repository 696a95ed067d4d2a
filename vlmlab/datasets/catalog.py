"""The datasets that have a name, as a table that costs nothing to read (no picture, no torch)."""

from __future__ import annotations

from dataclasses import dataclass

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class DatasetInfo:
    """One dataset.

    Attributes:
        classes: how many; 0 where that depends on the user's pictures.
        mirrors: the dataset of the field that it stands for ("" if it is that dataset).
        offline: works without a download.
        gap: what separates its pictures or its names from what the micro backbones were pretrained on.
    """

    name: str
    classes: int
    tasks: tuple[str, ...]
    mirrors: str
    offline: bool
    gap: str = ""
    splits: tuple[str, ...] = SPLITS


ONE, MANY, DENSE = ("classification",), ("classification", "multi-label"), ("multi-label", "detection", "segmentation")

DATASETS: tuple[DatasetInfo, ...] = (
    DatasetInfo("objects", 54, (*ONE, "segmentation"), "ImageNet", True, "none: pictures like those of pretraining"),
    DatasetInfo("objects-sketch", 54, ONE, "ImageNet-Sketch", True, "style: drawings are 6 % of pretraining"),
    DatasetInfo("objects-silhouette", 54, ONE, "ImageNet-R", True, "style: silhouettes are 8 % of pretraining"),
    DatasetInfo("objects-mosaic", 54, ONE, "ImageNet-A", True, "style: mosaics are 3 % of pretraining"),
    DatasetInfo("objects-v2", 54, ONE, "ImageNet-V2", True, "pose: objects lean and stretch more, and are smaller"),
    DatasetInfo("creatures", 12, ONE, "Oxford Pets, CUB", True, "granularity: captions mostly say 'bird'"),
    DatasetInfo("flowers", 12, ONE, "Flowers102", True, "granularity: captions mostly say 'flower'"),
    DatasetInfo("vehicles", 12, ONE, "Stanford Cars, FGVC Aircraft", True, "little: captions mostly give the name"),
    DatasetInfo("food", 10, ONE, "Food-101", True, "little: captions mostly give the name"),
    DatasetInfo("textures", 10, ONE, "DTD", True, "names: adjectives that captions use rarely"),
    DatasetInfo("aerial", 10, ONE, "EuroSAT", True, "viewpoint: rare in pretraining and almost never named"),
    DatasetInfo("scenes", 10, ONE, "SUN397", True, "little: captions mostly name the place"),
    DatasetInfo("actions", 10, ONE, "UCF101", True, "names: verbs; captions mostly say 'a person'"),
    DatasetInfo("digits", 10, ONE, "MNIST", True, "everything: real handwriting, which pretraining never showed"),
    DatasetInfo("tableau", 47, DENSE, "VOC, COCO", True, "several objects in one picture"),
    DatasetInfo("caltech101", 100, ONE, "", False),
    DatasetInfo("oxford-pets", 37, ONE, "", False),
    DatasetInfo("flowers102", 102, ONE, "", False),
    DatasetInfo("food101", 101, ONE, "", False),
    DatasetInfo("dtd", 47, ONE, "", False),
    DatasetInfo("eurosat", 10, ONE, "", False),
    DatasetInfo("fgvc-aircraft", 100, ONE, "", False),
    DatasetInfo("stanford-cars", 196, ONE, "", False),
    DatasetInfo("sun397", 397, ONE, "", False),
    DatasetInfo("cifar10", 10, ONE, "", False),
    DatasetInfo("cifar100", 100, ONE, "", False),
)
