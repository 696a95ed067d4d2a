"""Many looks at one test image: random crops, as TPT, MTA and ZERO take them.

Dimensions: B images, V views, S image side, e joint width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.transforms import Compose, RandomHorizontalFlip, RandomResizedCrop

from vlmlab.methods.method import PICTURES_AT_ONCE, Batch
from vlmlab.randomness import LocalRandom


def crop_and_flip(side: int) -> Compose:
    """The augmentation of a raw image [3, H, W]: a random crop of 8 to 100 % of it, resized to `side`, and a random flip."""
    return Compose([RandomResizedCrop(side, antialias=True), RandomHorizontalFlip()])


def crops_of(backbone, pictures: Sequence, seeds: Sequence[int], n_views: int) -> Tensor:
    """Raw images [H, W, 3] -> [B, V, 3, S, S]: the test transform, then V-1 random crops; image i draws from `seeds[i]`."""
    augment, ready = crop_and_flip(backbone.image_size), []
    for picture, seed in zip(pictures, seeds, strict=True):
        pixels = torch.as_tensor(picture).movedim(-1, 0)  # uint8 [3, H, W]
        with LocalRandom(seed):
            crops = [augment(pixels).movedim(0, -1) for _ in range(n_views - 1)]
        ready.append(torch.cat([backbone.preprocess([picture]), backbone.preprocess(crops)]))
    return torch.stack(ready).to(backbone.device)


@torch.no_grad()
def view_features(backbone, batch: Batch) -> Tensor:
    """Features [B, V, e] of the views: those that the batch carries, else its images [B, V, 3, S, S] are encoded."""
    if batch.features is not None:
        return batch.features
    chunks = batch.images.flatten(0, 1).split(PICTURES_AT_ONCE)
    return torch.cat([backbone.encode_image(chunk) for chunk in chunks]).unflatten(0, batch.images.shape[:2])
