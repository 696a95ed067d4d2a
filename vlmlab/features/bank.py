"""Frozen features, computed once.

A frozen image encoder gives the same feature for the same image in every epoch, for every system, seed and number of
shots. The bank encodes an image set once per backbone and transform, keeps the matrix in memory and on the disk, and
hands it out from then on; that turns an epoch of CoOp on a CPU from minutes into milliseconds, and is exact.

What may change a feature is in its key: the backbone's weights, the images, the transform with its seed. The files
lie in the user's cache and may be deleted at any time.

Dimensions: N images, V views, e joint width, S image side.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torchvision.transforms import v2
from tqdm import tqdm

from vlmlab.clock import Clock, charge, uncounted
from vlmlab.errors import VlmlabError
from vlmlab.files import cache_path, write_atomically
from vlmlab.randomness import LocalRandom
from vlmlab.watch import told

PICTURES_AT_ONCE = 64  # bounds the memory of one pass through an image tower
CROP_AREA = (0.08, 1.0)  # share of the image that a training view shows, as in CoOp's official configuration
FIT = "resize, centre crop"  # the transform of evaluation, by name


class FeatureBank:
    """Image features of one backbone.

    `disk` says whether they are also kept in the user's cache, where later runs find them.
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
            return self._kept(pictures, FIT, lambda positions: evaluated(self.backbone, pictures, positions))

    def views(self, pictures, count: int, seed: int) -> Tensor:
        """Features [V, N, e] of `count` random crops of every image; the same for the same seed.

        Cached ones take as long on the `Clock` as encoding them had taken, which is kept beside them.
        """
        names = [f"crop {CROP_AREA}, flip, seed {seed}, view {view}" for view in range(count)]
        return torch.stack(
            [
                self._kept(pictures, name, lambda p, view=view: augmented(self.backbone, pictures, p, seed, view))
                for view, name in enumerate(names)
            ]
        )

    def _kept(self, pictures, transform: str, images_at) -> Tensor:
        """From memory, else from the disk, else computed; `images_at(positions)` gives tensors [n, 3, S, S]."""
        key = hashlib.sha256(f"{pictures.fingerprint()}\n{transform}".encode()).hexdigest()[:32]
        if key not in self._memory:
            found, cost = self._read(key, len(pictures)), (0.0, 0.0) if transform == FIT else self._cost(key)
            if found is None or cost is None:
                with Clock() as clock:
                    found = self._encode(pictures, images_at)
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
    def _encode(self, pictures, images_at) -> Tensor:
        chunks = [
            self.backbone.encode_image(images_at(positions)).float().cpu()
            for positions in chunked(len(pictures), PICTURES_AT_ONCE, "encoding images")
        ]
        return torch.cat(chunks) if chunks else torch.empty(0, self.backbone.embed_dim)

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
            warnings.warn(f"features are kept in memory only: {error}", stacklevel=2)
            self._folder = None


def evaluated(backbone, pictures, positions: Sequence[int]) -> Tensor:
    """Images [n, 3, S, S] at these positions of an ImageSet, as evaluation sees them, on the backbone's device."""
    raw = pictures.images(positions)
    side = backbone.image_size
    if any(picture.shape[:2] != (side, side) for picture in raw):
        # One by one through open_clip's own transform, so that no image's feature depends on its neighbours' sizes.
        raw = [Image.fromarray(picture) for picture in raw]
    return backbone.preprocess(raw).to(backbone.device)


def augmented(backbone, pictures, positions: Sequence[int], seed: int, view: int) -> Tensor:
    """Images [n, 3, S, S] as the field trains on them: a random crop, resized to S by S, and a random flip.

    What is cropped depends on the image's name, `seed` and `view` only, not on the order of the images.
    """
    side = backbone.image_size
    crop = v2.Compose(
        [
            v2.RandomResizedCrop(side, scale=CROP_AREA, interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
            v2.RandomHorizontalFlip(),
        ]
    )
    ready = []
    for position, picture in zip(positions, pictures.images(positions), strict=True):
        with LocalRandom(name_seed(pictures.ids[position], seed, view)):
            ready.append(crop(torch.as_tensor(picture).permute(2, 0, 1)).permute(1, 2, 0))
    return backbone.preprocess(torch.stack(ready)).to(backbone.device)


def name_seed(name: str, *numbers: int) -> int:
    """A seed below 2^63 that depends on an image's name and some numbers, the same on every machine."""
    text = "\0".join([name, *map(str, numbers)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def chunked(total: int, size: int, doing: str) -> Iterator[range]:
    """Positions 0 .. total-1 in ranges of `size`; a progress bar on a terminal if there are many."""
    starts = range(0, total, size)
    # tqdm's None: no bar unless standard error is a terminal.
    for start in tqdm(starts, doing, leave=False, disable=None if len(starts) > 4 else True):
        told(doing, start, total)
        yield range(start, min(start + size, total))
