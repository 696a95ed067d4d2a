"""A prompt in the image: does a red circle around an object make the model speak of it?

Scenes with two objects of different categories; one of them is marked. Red circles (arXiv 2304.06712) steer CLIP without
learning, it is said because the web's images have them. MicroWorld has none, so that one can ask how many marked images it
takes. Two numbers: how often the marked object's name gets a higher score than the other object's, and how often it is the
first of all names.

Dimensions: n scenes, C names, e joint width.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

from vlmlab.errors import unknown
from vlmlab.studies.directions.encoded import encoded_pixels
from vlmlab.studies.run import shared_bank
from vlmlab.world.captions import PAIRS, with_article
from vlmlab.world.objects import names
from vlmlab.world.painter import Picture, render
from vlmlab.world.scene import sample_scene

MARKS = ("plain", "circle", "blur", "crop")
"""No mark; an ellipse around the object; everything outside of it blurred; the object cut out and enlarged."""
RED = (255, 0, 0)
LEAST = 60  # visible pixels of each object, so that both can be seen at all


@dataclasses.dataclass(frozen=True)
class TwoObjects:
    """Scenes with two objects; `target` [n] and `other` [n] are places of their names among `classes`, box the target's."""

    pictures: list[Picture]
    boxes: np.ndarray
    target: Tensor
    other: Tensor
    classes: tuple[str, ...]


def scenes(count: int, seed: int) -> TwoObjects:
    """So many photo scenes with two objects of different known categories, both visible; either is the target."""
    rng = np.random.default_rng([9, seed])
    known = names("known")
    pictures, boxes, pairs = [], [], []
    while len(pictures) < count:
        a, b = rng.permutation(len(known))[:2].tolist()
        picture = render(sample_scene(rng, categories=[known[a], known[b]], style="photo"))
        at = int(rng.integers(2))
        if min(int((picture.instances == k).sum()) for k in (1, 2)) < LEAST:
            continue
        pictures.append(picture)
        boxes.append(picture.boxes[at])
        pairs.append((a, b) if at == 0 else (b, a))
    target, other = torch.tensor(pairs).T
    return TwoObjects(pictures, np.stack(boxes), target, other, known)


def marked(pixels: np.ndarray, box: np.ndarray, mark: str = "circle", colour=RED, width: int = 2) -> np.ndarray:
    """An image uint8 [S, S, 3] with a mark at a box (x0, y0, x1, y1).

    Raises `VlmlabError` for a mark that is not in MARKS.
    """
    if mark not in MARKS:
        raise unknown("mark", mark, MARKS)
    side = len(pixels)
    x0, y0, x1, y1 = (int(v) for v in box)
    image = Image.fromarray(pixels)
    round_it = (max(0, x0 - 4), max(0, y0 - 4), min(side - 1, x1 + 3), min(side - 1, y1 + 3))
    if mark == "circle":
        ImageDraw.Draw(image).ellipse(round_it, outline=colour, width=width)
    elif mark == "blur":
        inside = Image.new("L", image.size, 0)
        ImageDraw.Draw(inside).ellipse(round_it, fill=255)
        image = Image.composite(image, image.filter(ImageFilter.GaussianBlur(6)), inside)
    elif mark == "crop":
        image = image.crop(round_it).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(image).copy()


def features(found: TwoObjects, mark: str = "circle", **look) -> Tensor:
    """Unit features [n, e] of the scenes with their mark; `look` is that of `marked`."""
    pairs = zip(found.pictures, found.boxes, strict=True)
    return encoded_pixels(np.stack([marked(picture.pixels, box, mark, **look) for picture, box in pairs]))


@torch.no_grad()
def words(classes: tuple[str, ...]) -> Tensor:
    """Unit class embeddings [C, e]."""
    spoken = [name if name in PAIRS else with_article(name) for name in classes]
    return shared_bank("micro-vit").backbone.class_embeddings(spoken, ["a photo of {}", "a picture of {}"]).float()


def followed(f: Tensor, found: TwoObjects, classifier: Tensor) -> tuple[float, float]:
    """Percent of the scenes in which the target beats the other object, and in which it is the first of all names."""
    scores, rows = f @ classifier.T, torch.arange(len(f))
    beats = scores[rows, found.target] > scores[rows, found.other]
    return 100 * float(beats.float().mean()), 100 * float((scores.argmax(-1) == found.target).float().mean())


def learned(f: Tensor, found: TwoObjects, classifier: Tensor, ridge: float = 1.0) -> Tensor:
    """A linear map A [e, e] behind the frozen tower, fitted to marked images: A = argmin |f + f A - word|^2 + ridge |A|^2.

    f [n, e] are features of marked scenes, the word is that of the marked object. `f + f A` is then what one predicts with.
    """
    gap = classifier[found.target] - f
    return torch.linalg.solve(f.T @ f + ridge * torch.eye(f.shape[1]), f.T @ gap)
