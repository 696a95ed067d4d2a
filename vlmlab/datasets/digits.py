"""Real handwriting without a download: scikit-learn's digits (UCI's optical recognition test set).

1,797 digits by 13 writers, 8 x 8 pixels of 17 grey levels (Alpaydin and Kaynak, 1998; CC BY 4.0).
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from vlmlab.datasets.catalog import BY_NAME
from vlmlab.datasets.dataset import Dataset
from vlmlab.datasets.image_set import ArrayPictures, ImageSet, Pixels
from vlmlab.datasets.splits import seeded_order
from vlmlab.errors import VlmlabError

TRAIN_PER_CLASS, VAL_PER_CLASS = 48, 16
MARGIN = 1
"""Empty pixels around the 8 x 8: without them strokes touch the frame."""
INK_LEVELS = 16
PAPER = 255


def load_digits(size: int = 64) -> Dataset:
    """The ten digits, dark ink on white paper, enlarged to `size` x `size` pixels.

    scikit-learn has no official split: 48 images of each digit to learn from and 16 to validate on are drawn by name,
    once and for all; the other 1,157 are the test set.
    """
    from sklearn.datasets import load_digits as bundled

    if size < 8:
        raise VlmlabError(f"digits of {size} pixels cannot be read; ask for a size of at least 8")
    raw = bundled()
    labels = raw.target
    ids = [f"digits/{i:04d}" for i in range(len(labels))]
    pictures = ArrayPictures(lambda: _enlarged(raw.images, size), f"scikit-learn digits {size}")
    everything = ImageSet(pictures, labels, ids)
    split: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    order = seeded_order(ids, 0)
    for digit in range(10):
        of_digit = [i for i in order if labels[i] == digit]
        split["train"] += of_digit[:TRAIN_PER_CLASS]
        split["val"] += of_digit[TRAIN_PER_CLASS : TRAIN_PER_CLASS + VAL_PER_CLASS]
        split["test"] += of_digit[TRAIN_PER_CLASS + VAL_PER_CLASS :]
    info = BY_NAME["digits"]
    return Dataset(
        name="digits",
        classes=[str(digit) for digit in range(10)],
        # CLIP's own sentence for MNIST (arXiv 2103.00020) first.
        templates=['a photo of the number: "{}".', "a photo of the digit {}.", "a handwritten {}."],
        train=everything.subset(sorted(split["train"])),
        val=everything.subset(sorted(split["val"])),
        test=everything.subset(sorted(split["test"])),
        gap=info.gap,
        mirrors=info.mirrors,
        split_source="seeded",
    )


def _enlarged(ink: np.ndarray, size: int) -> Pixels:
    """[N, 8, 8] ink levels 0 to 16 -> [N, size, size, 3]."""
    grey = PAPER * (1 - np.pad(ink, ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN))) / INK_LEVELS)
    large = [
        np.asarray(Image.fromarray(g.astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC)) for g in grey
    ]
    return np.repeat(np.clip(np.rint(large), 0, 255).astype(np.uint8)[..., None], 3, axis=-1)
