"""Maps brought to the outlines of an image: every superpixel gets its mean score.

Dimensions: C classes, H x W an image.
"""

from __future__ import annotations

import numpy as np
from skimage.segmentation import slic

COUNT, COMPACTNESS = 200, 10.0
"""Superpixels of an image, and how round they are: SLIC's weight of the distance against the colour."""


def superpixels(pixels: np.ndarray, count: int = COUNT) -> np.ndarray:
    """The number of the superpixel of every pixel of uint8 [H, W, 3]: int64 [H, W], from 0, without gaps (SLIC)."""
    found = slic(pixels, n_segments=count, compactness=COMPACTNESS, start_label=0)
    return np.unique(found, return_inverse=True)[1].reshape(found.shape)


def snapped(scores: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """Scores [C, H, W] with those of every region [H, W] replaced by their mean."""
    area = np.bincount(regions.ravel())
    means = np.stack([np.bincount(regions.ravel(), one.ravel()) / area for one in scores])
    return means[:, regions].astype(scores.dtype)
