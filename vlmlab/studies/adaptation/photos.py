"""Photographs and the reader's words: predictions for whole images, and per location."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from vlmlab.errors import VlmlabError

TEMPLATE = "a photo of a {}."


@dataclasses.dataclass
class Photographs:
    """Arguments for `views.pictures.word_predictions` and `views.pictures.dense_maps`."""

    predictions: tuple
    maps: tuple


@torch.no_grad()
def photographs(
    backbone_name: str, words: Sequence[str], most: int = 9, dense: int = 6, side: int = 448
) -> Photographs:
    """Predict words for the photographs that come with scikit-image and scikit-learn, whole and per location.

    Raises `VlmlabError` for an empty list of words, or an empty word in it.
    """
    from vlmlab.datasets.photographs import photographs as load_photographs
    from vlmlab.studies.run import shared_bank

    if not words or not all(word.strip() for word in words):
        raise VlmlabError("the list of words is empty or has an empty word; give words such as cat, tree, sky")
    backbone = shared_bank(backbone_name).backbone
    shown = [(name, image.copy()) for name, image in load_photographs()[:most]]  # Pillow's own memory is read-only
    text = backbone.class_embeddings(list(words), [TEMPLATE])
    pixels, names, probabilities = [], [], []
    maps: list[np.ndarray] = []
    for name, image in shown:
        ready = backbone.preprocess(torch.as_tensor(image)[None]).to(backbone.device)
        feature = F.normalize(backbone.encode_image(ready), dim=-1)
        probabilities.append((backbone.logit_scale * feature @ text.T).softmax(-1)[0].float().cpu().numpy())
        pixels.append(image)
        names.append(name)
        if len(maps) < dense:
            maps.append(_dense(backbone, image, text, side))
    return Photographs(
        (pixels, names, np.stack(probabilities), list(words)),
        (pixels[: len(maps)], names[: len(maps)], maps, list(words)),
    )


def _dense(backbone, image: np.ndarray, text: torch.Tensor, side: int) -> np.ndarray:
    """Cosine of every location of a photograph with every word, [words, H, W] at the size of the image."""
    height, width = image.shape[:2]
    scale = side / min(height, width)
    size = (round(height * scale / 32) * 32, round(width * scale / 32) * 32)
    x = torch.as_tensor(image).permute(2, 0, 1)[None].float() / 255
    x = F.interpolate(x, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    mean, std = (torch.as_tensor(v).view(1, 3, 1, 1).float() for v in (backbone.mean, backbone.std))
    local = F.normalize(backbone.image.local_features(((x - mean) / std).to(backbone.device)), dim=1)
    scores = torch.einsum("behw,ce->bchw", local, text)
    return F.interpolate(scores, (height, width), mode="bilinear", align_corners=False)[0].float().cpu().numpy()
