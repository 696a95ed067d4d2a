"""A trained system asked about anybody's images, in anybody's words: boxes with names, or shares of pixels.

Dimensions: n detections, H x W an image.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from vlmlab.datasets.image_set import read_picture
from vlmlab.errors import VlmlabError
from vlmlab.methods.dense.detections import Detections
from vlmlab.methods.dense.detector import Detector
from vlmlab.methods.dense.segmenter import Segmenter
from vlmlab.methods.method import Method

LONGEST = 1024
"""Pixels of the longer side of an image: a larger one is made smaller before it is looked at."""


def check_words(words: Sequence[str]) -> list[str]:
    """The words without white space around them; `VlmlabError` if there is none, or if one comes twice."""
    found = [word.strip() for word in words if word.strip()]
    if not found:
        raise VlmlabError("there is no word to look for; give at least one, as in --words 'apple, tree'")
    if twice := [word for word in dict.fromkeys(found) if found.count(word) > 1]:
        raise VlmlabError(f"the word '{twice[0]}' comes twice; give each once")
    return found


def read_images(paths: Sequence[Path]) -> list[np.ndarray]:
    """The image files [H, W, 3], at most `LONGEST` pixels a side; `VlmlabError` that names one that cannot be read."""
    for path in paths:
        if not path.is_file():
            raise VlmlabError(f"there is no image {path}; name a file")
    return [read_picture(path, LONGEST) for path in paths]


def predict_images(
    method: Method, images: Sequence[np.ndarray], words: Sequence[str], threshold: float = 0.0, most: int = 20
) -> list[tuple[dict, Image.Image]]:
    """What the system finds in each image, as plain values, and the image with it drawn in.

    A detector gives {"size": [H, W], "detections": [{"word", "score", "box": [x0, y0, x1, y1]}]}, the surest first, at most
    `most` with a score of at least `threshold`; a segmenter gives {"size", "share": {word: percent of the pixels}}.
    Raises `VlmlabError` for a system that does neither, or that cannot be asked for these words.
    """
    if isinstance(method, Detector):
        found = [one[one.scores >= threshold].surest(most) for one in method.predict(images, words)]
        return [_boxes(image, one, words) for image, one in zip(images, found, strict=True)]
    if isinstance(method, Segmenter):
        maps = method.predict(images, words)
        return [_pixels(image, one.numpy(), words) for image, one in zip(images, maps, strict=True)]
    raise VlmlabError(
        f"{method.info.key} finds nothing in images; choose a system that detects or segments, such as vild"
    )


def _boxes(image: np.ndarray, found: Detections, words: Sequence[str]) -> tuple[dict, Image.Image]:
    drawn = Image.fromarray(image)
    pen, colours, rows = ImageDraw.Draw(drawn), _colours(len(words)), []
    for box, score, label in zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True):
        rows.append({"word": words[label], "score": round(score, 4), "box": [round(x, 1) for x in box]})
    for row in reversed(rows):  # the surest on top
        colour = colours[words.index(row["word"])]
        pen.rectangle(row["box"], outline=colour, width=max(1, max(image.shape[:2]) // 250))
        pen.text((row["box"][0] + 2, row["box"][1]), f"{row['word']} {row['score']:.2f}", fill=colour)
    return {"size": list(image.shape[:2]), "detections": rows}, drawn


def _pixels(image: np.ndarray, named: np.ndarray, words: Sequence[str]) -> tuple[dict, Image.Image]:
    colours = np.array(_colours(len(words)), np.float32)
    mixed = (0.5 * image + 0.5 * colours[named]).astype(np.uint8)
    share = {word: round(100 * float((named == c).mean()), 2) for c, word in enumerate(words)}
    return {"size": list(image.shape[:2]), "share": share}, Image.fromarray(mixed)


def _colours(count: int) -> list[tuple[int, int, int]]:
    """As many colours as words, told apart by their hue."""
    hues = (colorsys.hsv_to_rgb(k / count, 0.9, 1.0) for k in range(count))
    return [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in hues]
