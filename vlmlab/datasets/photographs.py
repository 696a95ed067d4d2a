"""Real photographs that come inside scikit-image and scikit-learn, so that no download is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import skimage
import sklearn

from vlmlab.datasets.image_set import read_picture

IN_SKIMAGE = {"astronaut": "astronaut.png", "cat": "chelsea.png", "coffee": "coffee.png", "rocket": "rocket.jpg"}
IN_SKLEARN = {"temple": "china.jpg", "flower": "flower.jpg"}


def photographs() -> list[tuple[str, np.ndarray]]:
    """(name, pixels [H, W, 3] uint8) of every picture that is there; sizes differ."""
    folders = ((Path(skimage.__file__).parent / "data", IN_SKIMAGE), (Path(sklearn.__file__).parent / "datasets/images", IN_SKLEARN))
    found = []
    for folder, files in folders:
        found += [(name, read_picture(folder / file)) for name, file in files.items() if (folder / file).is_file()]
    return found
