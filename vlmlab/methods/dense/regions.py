"""Regions of images, computed once: boxes of the frozen proposer, its feature map, and what CLIP says of the crops.

    maps [N, W, h, h]   boxes [N, P, 4]   objectness [N, P]   embeddings [N, P, e]

A file holds all of that for one image set. Its key is the hash of the proposer's weights, the images, the number of
proposals and how they are cropped; it lies in a folder of the backbone's weights in the user's cache, and may be deleted at
any time. Whatever a system adds of its own (other crops, blocks, captions) goes beside it by `RegionBank.stored`.

Dimensions: N images, B of them at once, S side of the backbone's input, P proposals an image, W channels, e joint width.
"""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from vlmlab.clock import uncounted
from vlmlab.errors import VlmlabError
from vlmlab.features.bank import chunked
from vlmlab.files import cache_path, write_atomically
from vlmlab.geometry import Frame
from vlmlab.methods.dense.boxes import side_by_side
from vlmlab.methods.dense.crops import crop_embeddings
from vlmlab.methods.dense.proposals import load_proposer, proposer_fingerprint

AT_ONCE = 64
VERSION = 1  # of what the functions below compute; a part of the key


@dataclass
class Regions:
    """What is frozen about the regions of some images.

    Attributes:
        maps: [B, W, h, h] the proposer's feature map.
        boxes: [B, P, 4] in pixels of the backbone's input, the most promising first; zeros where there is none.
        objectness: [B, P] in 0 to 1.
        there: [B, P] bool.
        embeddings: [B, P, e] unit, CLIP's of the crops; None where nobody asked.
    """

    maps: Tensor
    boxes: Tensor
    objectness: Tensor
    there: Tensor
    embeddings: Tensor | None = None

    def at(self, index: Tensor) -> Regions:
        """Those of the images at these positions."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return Regions(**{name: None if value is None else value[index] for name, value in values.items()})


class RegionBank:
    """Images in, `Regions` out, for one backbone: `count` proposals, CLIP's crops of these `scales` and `shape`.

    `disk` says whether the regions of whole image sets are also in the user's cache, where later runs find them.
    """

    def __init__(
        self, backbone, count: int, scales: Sequence[float] = (1.0, 1.5), shape: str = "stretched", disk: bool = True
    ) -> None:
        self.backbone, self.count, self.scales, self.shape, self.disk = backbone, count, tuple(scales), shape, disk
        self.proposer = load_proposer(backbone.device)
        self._latest: tuple[Tensor | None, Regions | None] = (None, None)
        self._seen: dict[str, Regions] | None = None  # hash of a batch's pixels -> its regions, while `remembering`

    @property
    def ratio(self) -> float:
        """Pixels of the backbone's input per pixel of the proposer's."""
        return self.backbone.image_size / self.proposer.side

    @contextlib.contextmanager
    def remembering(self) -> Iterator[None]:
        """Meanwhile, the regions of every batch stay in memory, for whoever looks at the same images several times."""
        self._seen = {}
        try:
            yield
        finally:
            self._seen = None

    @torch.no_grad()
    def find(self, images: Tensor, crops: bool = False) -> Regions:
        """Of normalised images [B, 3, S, S]; with the embeddings of the crops if asked. The latest stay in memory."""
        known, found = self._latest
        if known is not images or found is None:
            if self._seen is None:
                found = self._computed(images)
            else:
                key = hashlib.blake2b(images.float().cpu().numpy().tobytes()).hexdigest()
                found = self._seen.get(key) or self._computed(images)
                self._seen[key] = found
            self._latest = (images, found)
        if crops and found.embeddings is None:
            found.embeddings = crop_embeddings(self.backbone, images, found.boxes, self.scales, self.shape)
        return found

    def _computed(self, images: Tensor) -> Regions:
        mean, std = (v.to(images.device).view(3, 1, 1) for v in (self.backbone.mean, self.backbone.std))
        plain = (images.float() * std + mean).clamp(0, 1)
        side = self.proposer.side
        if plain.shape[-1] != side:
            plain = F.interpolate(plain, (side, side), mode="bilinear", antialias=True)
        maps = self.proposer.maps(plain)
        boxes = self.proposer.propose(maps, self.count)
        return Regions(maps, boxes.boxes * self.ratio, boxes.objectness, boxes.there)

    def give(self, images: Tensor, boxes: Sequence[Tensor]) -> None:
        """Until other images come, let these boxes [n, 4] of each image stand for its proposals, all equally sure.

        True boxes show what a system makes of its names alone. They are in pixels of `images` [B, 3, S, S].
        """
        found = self.find(images)
        padded = side_by_side([own.to(found.boxes.device, found.boxes.dtype) for own in boxes])
        counts = torch.tensor([len(own) for own in boxes], device=padded.device)
        there = torch.arange(padded.shape[1], device=padded.device) < counts[:, None]
        self._latest = (images, Regions(found.maps, padded, there.to(padded.dtype), there))

    def regions(self, framed: Callable, pictures, crops: bool = True) -> tuple[Regions, list[Frame]]:
        """Regions of all images of an ImageSet, on the backbone's device, and how each lies in the network's input.

        `framed` is `Dense.framed`. They take no time on the `Clock` of the system that happens to ask first.
        """
        crop = f"{self.scales} {self.shape}" if crops else "no crops"

        def compute(positions: range) -> dict[str, Tensor]:
            images, frames = framed([pictures.images(i) for i in positions])
            found = self.find(images, crops)
            own = {field.name: getattr(found, field.name) for field in fields(Regions)}
            own["there"] = own["there"].to(torch.uint8)
            own["sizes"] = torch.tensor([frame.image for frame in frames])
            return {name: value for name, value in own.items() if value is not None and (crops or name != "embeddings")}

        stored = self.stored(pictures, f"regions {crop}", compute)
        there, sizes = stored.pop("there").bool(), stored.pop("sizes").long().tolist()
        return Regions(**stored, there=there), [Frame.letterbox((h, w), self.backbone.image_size) for h, w in sizes]

    def stored(self, pictures, recipe: str, compute: Callable[[range], dict[str, Tensor]]) -> dict[str, Tensor]:
        """What `compute` says of the images at some positions, [n, ...] each, for all images of the set: computed once.

        `recipe` says in words what is computed, and tells files apart. The tensors come in half precision (boxes in full) and
        back as float32 on the backbone's device, so that what was just computed has the bits of what is read later.
        """
        words = f"{VERSION} {proposer_fingerprint()} {pictures.fingerprint()} {self.count} {recipe}"
        key = hashlib.sha256(words.encode()).hexdigest()[:32]
        path = cache_path("regions", self.backbone.fingerprint(), f"{key}.safetensors")
        with uncounted():
            values = self._read(path, len(pictures)) if self.disk else None
            if values is None:
                parts = [compute(p) for p in chunked(len(pictures), AT_ONCE, f"finding {recipe.split()[0]}")]
                values = {name: _stored(name, torch.cat([part[name] for part in parts])) for name in parts[0]}
                if self.disk:
                    _write(path, values)
        return {name: value.to(self.backbone.device).float() for name, value in values.items()}

    @staticmethod
    def _read(path, count: int) -> dict[str, Tensor] | None:
        """A file's tensors; None if there is none, or if it cannot be used: then it is made again."""
        if not path.is_file():
            return None
        try:
            values = load_file(path)
        except (OSError, SafetensorError):
            return None
        return values if all(len(value) == count for value in values.values()) else None


def _stored(name: str, value: Tensor) -> Tensor:
    value = value.detach().cpu().contiguous()
    return value.half() if value.is_floating_point() and name != "boxes" else value


def _write(path, values: dict[str, Tensor]) -> None:
    try:
        write_atomically(path, save(values))
    except VlmlabError as error:
        warnings.warn(f"regions are cached in memory only: {error}", stacklevel=3)
