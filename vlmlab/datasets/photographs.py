"""Real photographs that are already on the disk: those inside the scikit-image and scikit-learn packages.

Only files of the installed packages are read; scikit-image's larger images, which it would download, are not among
them. Each is one of a kind and is its own class, so there is nothing to learn from: they are to be looked at.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from vlmlab.datasets.catalog import BY_NAME
from vlmlab.datasets.dataset import Dataset
from vlmlab.datasets.image_set import FilePictures, ImageSet, Pixels, read_picture

IN_PACKAGE: tuple[tuple[str, str, str], ...] = (
    ("skimage/data", "astronaut.png", "astronaut"),
    ("skimage/data", "chelsea.png", "cat"),
    ("skimage/data", "coffee.png", "cup of coffee"),
    ("skimage/data", "motorcycle_left.png", "motorcycle"),
    ("skimage/data", "rocket.jpg", "rocket"),
    ("sklearn/datasets/images", "china.jpg", "temple"),
    ("sklearn/datasets/images", "flower.jpg", "flower"),
    ("skimage/data", "camera.png", "man with a camera"),
    ("skimage/data", "coins.png", "old coins"),
    ("skimage/data", "moon.png", "surface of the moon"),
    ("skimage/data", "hubble_deep_field.jpg", "galaxies"),
    ("skimage/data", "page.png", "page of a book"),
    ("skimage/data", "brick.png", "bricks"),
    ("skimage/data", "grass.png", "grass"),
    ("skimage/data", "gravel.png", "gravel"),
    ("skimage/data", "retina.jpg", "retina of an eye"),
    ("skimage/data", "ihc.png", "stained tissue under a microscope"),
)
"""(folder inside the packages, file, what it shows); everyday things first."""


def _paths() -> list[tuple[str, Path, str]]:
    """(id, file, class) of the photographs that are installed."""
    found = []
    for folder, file, word in IN_PACKAGE:
        package, *below = folder.split("/")
        # find_spec does not run the package: scikit-learn alone takes a second to import.
        path = Path(importlib.util.find_spec(package).origin).parent.joinpath(*below, file)
        if path.is_file():
            found.append((f"{package}/{file}", path, word))
    return found


def photographs() -> list[tuple[str, Pixels]]:
    """(what it shows, pixels [H, W, 3]) of every photograph, each in its own size."""
    return [(word, read_picture(path)) for _, path, word in _paths()]


def load_photographs() -> Dataset:
    """The photographs as a test set with one class each."""
    found = _paths()
    info = BY_NAME["photographs"]
    pictures = FilePictures([path for _, path, _ in found])
    test = ImageSet(pictures, range(len(found)), [name for name, _, _ in found])
    return Dataset(
        name="photographs",
        classes=[word for _, _, word in found],
        templates=["a photo of a {}."],
        train=test.subset([]),
        val=test.subset([]),
        test=test,
        gap=info.gap,
        mirrors=info.mirrors,
    )
