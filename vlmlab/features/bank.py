"""Frozen features, computed once.

A frozen image encoder gives the same feature for the same image in every epoch, for every system, seed and number of
shots. The bank encodes an image set once per backbone and transform, keeps the matrix in memory and on the disk, and
hands it out from then on; that turns an epoch of CoOp on a CPU from minutes into milliseconds, and is exact.

What may change a feature is in its key: the backbone's weights, the images, the transform with its seed. The files
lie in the user's cache and may be deleted at any time.

Dimensions: N images, V views, e joint width, S image side.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import warnings
from collections.abc import Generator, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from vlmlab.clock import Clock, charge, uncounted
from vlmlab.devices import sent
from vlmlab.errors import VlmlabError
from vlmlab.features.decoding import CROP_AREA, AsRead, Cropped, Evaluated, Recipe, prepared
from vlmlab.files import cache_path, write_atomically
from vlmlab.watch import told

PICTURES_AT_ONCE = 64  # bounds the memory of one pass through an image tower
FIT = "resize, centre crop"  # the transform of evaluation, by name


class FeatureBank:
    """Image features of one backbone.

    `disk` says whether they are also in the user's cache, where later runs find them.
    """

    def __init__(self, backbone, disk: bool = True) -> None:
        self.backbone = backbone
        self._folder = cache_path("features", backbone.fingerprint()) if disk else None
        self._memory: dict[str, Tensor] = {}
        self._costs: dict[str, tuple[float, float]] = {}

    def features(self, pictures) -> Tensor:
        """Features [N, e] of an ImageSet as evaluation sees it; float32, on the CPU, not normalised.

        All systems share them, so that they take no time on the `Clock` of the one that happens to ask first.
        """
        with uncounted():
            return self._kept(pictures, FIT, as_evaluated(self.backbone))

    def views(self, pictures, count: int, seed: int) -> Tensor:
        """Features [V, N, e] of `count` random crops of every image; the same for the same seed.

        Cached ones take as long on the `Clock` as encoding them had taken, which is kept beside them.
        """
        names = [f"crop {CROP_AREA}, flip, seed {seed}, view {view}" for view in range(count)]
        side = self.backbone.image_size
        return torch.stack([self._kept(pictures, name, Cropped(side, seed, view)) for view, name in enumerate(names)])

    def _kept(self, pictures, transform: str, recipe: Recipe) -> Tensor:
        """From memory, else from the disk, else computed from images that `recipe` makes."""
        key = hashlib.sha256(f"{pictures.fingerprint()}\n{transform}".encode()).hexdigest()[:32]
        if key not in self._memory:
            found, cost = self._read(key, len(pictures)), (0.0, 0.0) if transform == FIT else self._cost(key)
            if found is None or cost is None:
                with Clock() as clock:
                    found = self._encode(pictures, recipe)
                cost = clock.read()
                self._write(key, found, transform, cost)
            else:
                charge(*cost)
            self._memory[key], self._costs[key] = found, cost
        else:
            charge(*self._costs[key])
        return self._memory[key]

    def _cost(self, key: str) -> tuple[float, float] | None:
        """What encoding had taken, (seconds, cpu_seconds), from the disk; None for features that say nothing of it."""
        try:
            cost = json.loads((self._folder / f"{key}.json").read_text(encoding="utf-8")) if self._folder else {}
            return float(cost["seconds"]), float(cost["cpu_seconds"])
        except (OSError, ValueError, KeyError, TypeError):  # as in `_read`
            return None

    @torch.no_grad()
    def _encode(self, pictures, recipe: Recipe) -> Tensor:
        found = []
        for images in encodable(self.backbone, pictures, PICTURES_AT_ONCE, recipe, "encoding images"):
            found.append(self.backbone.encode_image(images).float().cpu())
        return torch.cat(found) if found else torch.empty(0, self.backbone.embed_dim)

    def _read(self, key: str, count: int) -> Tensor | None:
        path = self._folder and self._folder / f"{key}.safetensors"
        if path is None or not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as file:
                features = file.get_tensor("features")
        except (OSError, SafetensorError):  # a cache is never worth an error: a file that cannot be read is made again
            return None
        return features if features.shape == (count, self.backbone.embed_dim) else None

    def _write(self, key: str, features: Tensor, transform: str, cost: tuple[float, float]) -> None:
        if self._folder is None:
            return
        # One entry: safetensors writes several in no particular order, and equal features are to be equal files.
        content = save({"features": features.contiguous()}, {"of": f"{self.backbone.name}, {transform}"})
        try:
            write_atomically(self._folder / f"{key}.safetensors", content)
            if transform != FIT:
                # In a file of its own: the features are the same bytes wherever and whenever they are made.
                facts = dict(zip(("seconds", "cpu_seconds"), cost, strict=True))
                write_atomically(self._folder / f"{key}.json", json.dumps(facts))
        except VlmlabError as error:
            warnings.warn(f"features are cached in memory only: {error}", stacklevel=2)
            self._folder = None


def as_evaluated(backbone) -> Evaluated:
    """How evaluation sees images."""
    # Without open_clip's one function, which makes images RGB, as ours are: a worker would import open_clip for it.
    steps = tuple(step for step in backbone.transform.transforms if not inspect.isfunction(step))
    return Evaluated(backbone.image_size, steps)


def encodable(backbone, pictures, size: int, recipe: Recipe, doing: str) -> Generator[Tensor]:
    """All images of an ImageSet in chunks [n, 3, S, S] of `size`, on the backbone's device, decoded by workers where that is
    worth it (see `decoding`)."""
    chunks = [(range(start, min(start + size, len(pictures))), recipe) for start in range(0, len(pictures), size)]
    with contextlib.closing(prepared(pictures, chunks)) as arrays:
        # The count first: where the work is to be stopped, no chunk is waited for.
        for _, array in zip(chunked(len(pictures), size, doing), arrays, strict=True):
            yield on_device(backbone, array)


def as_read(pictures, size: int, doing: str) -> Generator[tuple[range, list[NDArray]]]:
    """(positions, their images [H, W, 3] of any size) of an ImageSet, `size` at a time, decoded as for `encodable`."""
    chunks = [(range(start, min(start + size, len(pictures))), AsRead()) for start in range(0, len(pictures), size)]
    with contextlib.closing(prepared(pictures, chunks)) as images:
        yield from zip(chunked(len(pictures), size, doing), images, strict=True)


def on_device(backbone, array: NDArray) -> Tensor:
    """What a `Recipe` gave, as images [n, 3, S, S] for the encoder on the backbone's device."""
    if array.dtype == np.uint8:
        return backbone.preprocess(array)
    return sent(torch.as_tensor(array), backbone.device)


def evaluated(backbone, pictures, positions: Sequence[int]) -> Tensor:
    """Images [n, 3, S, S] at these positions of an ImageSet, as evaluation sees them, on the backbone's device."""
    (array,) = prepared(pictures, [(positions, as_evaluated(backbone))])
    return on_device(backbone, array)


def augmented(backbone, pictures, positions: Sequence[int], seed: int, view: int) -> Tensor:
    """Images [n, 3, S, S] at these positions as the field trains on them (see `Cropped`)."""
    (array,) = prepared(pictures, [(positions, Cropped(backbone.image_size, seed, view))])
    return on_device(backbone, array)


def chunked(total: int, size: int, doing: str) -> Iterator[range]:
    """Positions 0 .. total-1 in ranges of `size`; a progress bar on a terminal if there are many."""
    starts = range(0, total, size)
    # tqdm's None: no bar unless standard error is a terminal.
    for start in tqdm(starts, doing, leave=False, disable=None if len(starts) > 4 else True):
        told(doing, start, total)
        yield range(start, min(start + size, total))
