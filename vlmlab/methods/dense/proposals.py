"""Boxes around whatever may be an object, with no name: a small two-stage proposer that saw boxes of base classes only.

    map    = convolutions at strides 2, 4 and 8, those at 4 and 8 added            [B, W, S/4, S/4]
    first  = per place and anchor: objectness o, deltas from the anchor            (Faster R-CNN, arXiv 1506.01497)
    second = RoIAlign of the first boxes -> two layers -> deltas                   one refinement, class-agnostic

Objectness of a class-agnostic proposer carries over to classes that it never saw boxes of; that is what open-vocabulary
detectors build on, and `recall_new` measures. Its map is the feature map that the heads of the two-stage systems read, and
it stays frozen: in the papers the whole detector learns with the head.

Dimensions: B images, S the side that the proposer works at, W channels, A anchors, P proposals an image, n boxes.
"""

from __future__ import annotations

import copy
import functools
import json
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.ops import batched_nms, roi_align

from vlmlab.errors import VlmlabError
from vlmlab.files import data_path, sha256, verified
from vlmlab.methods.dense.boxes import from_deltas
from vlmlab.randomness import LocalRandom

STRIDE = 4
CELLS = 5  # RoIAlign's grid
SIDES = (0.26, 0.36, 0.48)  # of the square anchors, in sides of the image
BEFORE = 200  # boxes that go into the suppression of doubles
NEAR = 0.6  # intersection over union above which the less promising of two boxes is dropped
SMALLEST = 3.0  # pixels


def _block(inside: int, outside: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outside), nn.ReLU())


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            _block(width, width), nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.inner(x))


@dataclass
class Proposed:
    """Boxes of a batch in pixels of the proposer's input, the most promising first; rows that are none are zeros.

    boxes [B, P, 4]; objectness [B, P] in 0 to 1; there [B, P] bool.
    """

    boxes: Tensor
    objectness: Tensor
    there: Tensor


class Proposer(nn.Module):
    """Images [B, 3, S, S] with values in 0 to 1 -> feature map and boxes."""

    def __init__(self, side: int = 64, channels: tuple[int, int, int] = (32, 64, 128), width: int = 96) -> None:
        super().__init__()
        self.side, self.width = side, width
        low, middle, high = channels
        self.stride4 = nn.Sequential(_block(3, low, 2), _block(low, low), _block(low, middle, 2), _Residual(middle))
        self.stride8 = nn.Sequential(_block(middle, high, 2), _Residual(high))
        self.from4, self.from8 = nn.Conv2d(middle, width, 1), nn.Conv2d(high, width, 1)
        self.out = _block(width, width)
        self.first = nn.Conv2d(width, 96, 3, 1, 1)
        self.objectness, self.shifts = nn.Conv2d(96, len(SIDES), 1), nn.Conv2d(96, 4 * len(SIDES), 1)
        self.second = nn.Sequential(
            nn.Linear(width * CELLS**2, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 4)
        )
        nn.init.constant_(self.objectness.bias, -3.0)
        nn.init.normal_(self.second[-1].weight, std=0.001)
        nn.init.zeros_(self.second[-1].bias)
        self.register_buffer("anchors", _anchors(side), persistent=False)

    def maps(self, images: Tensor) -> Tensor:
        """[B, W, S/4, S/4] of images in 0 to 1."""
        four = self.stride4((images - 0.5) / 0.25)
        eight = F.interpolate(self.from8(self.stride8(four)), scale_factor=2.0, mode="nearest")
        return self.out(self.from4(four) + eight)

    def anchor_scores(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """(objectness logits [B, A], deltas [B, A, 4]) of every anchor."""
        x = F.relu(self.first(maps))
        return (
            self.objectness(x).permute(0, 2, 3, 1).flatten(1),
            self.shifts(x).permute(0, 2, 3, 1).reshape(len(x), -1, 4),
        )

    def regions(self, maps: Tensor, boxes: Tensor) -> Tensor:
        """RoIAlign of boxes [B, n, 4]: [B, n, W * 25]."""
        return region_features(maps, boxes)

    @torch.no_grad()
    def first_boxes(self, logits: Tensor, deltas: Tensor, count: int, near: float = NEAR) -> Proposed:
        """The `count` most promising anchors of every image after the suppression of doubles, from `anchor_scores`."""
        scores, chosen = logits.topk(min(BEFORE, logits.shape[1]), 1)
        boxes = from_deltas(
            self.anchors[chosen], deltas.gather(1, chosen[..., None].expand(-1, -1, 4)), float(self.side)
        )
        image = torch.arange(len(logits), device=logits.device)[:, None].expand_as(scores)
        large = ((boxes[..., 2:] - boxes[..., :2]).amin(-1) > SMALLEST).flatten()
        boxes, scores, image = boxes.flatten(0, 1)[large], scores.flatten()[large], image.flatten()[large]
        kept = batched_nms(boxes, scores, image, near)
        kept = kept[image[kept].argsort(stable=True)]
        boxes, scores, image = boxes[kept], scores[kept], image[kept]
        place = torch.arange(len(image), device=image.device) - torch.searchsorted(image, image)
        few = place < count
        image, place = image[few], place[few]
        found = Proposed(
            boxes.new_zeros(len(logits), count, 4),
            boxes.new_zeros(len(logits), count),
            torch.zeros(len(logits), count, dtype=torch.bool, device=boxes.device),
        )
        found.boxes[image, place], found.objectness[image, place] = boxes[few], scores[few].sigmoid()
        found.there[image, place] = True
        return found

    @torch.no_grad()
    def propose(self, maps: Tensor, count: int) -> Proposed:
        """`count` boxes of every image, refined once."""
        found = self.first_boxes(*self.anchor_scores(maps), count)
        refined = from_deltas(found.boxes, self.second(self.regions(maps, found.boxes)), float(self.side))
        found.boxes = refined * found.there[..., None]
        return found


def region_features(maps: Tensor, boxes: Tensor) -> Tensor:
    """What lies under boxes [B, n, 4] of maps [B, W, S/4, S/4]: RoIAlign on a grid of 5 x 5, [B, n, W * 25]."""
    image = torch.arange(len(boxes), device=boxes.device).repeat_interleave(boxes.shape[1])
    rows = torch.cat([image[:, None].to(boxes.dtype), boxes.flatten(0, 1)], 1)
    found = roi_align(maps, rows.to(maps.dtype), CELLS, 1 / STRIDE, sampling_ratio=2, aligned=True)
    return found.flatten(1).unflatten(0, boxes.shape[:2])


def _anchors(side: int) -> Tensor:
    """Square anchors [A, 4] around the centre of every place of the map, in the order of `Proposer.anchor_scores`."""
    centre = (torch.arange(side // STRIDE) + 0.5) * STRIDE
    y, x = torch.meshgrid(centre, centre, indexing="ij")
    middle = torch.stack([x, y], -1)[:, :, None]
    half = torch.tensor(SIDES)[None, None, :, None] * side / 2
    return torch.cat([middle - half, middle + half], -1).reshape(-1, 4)


def load_proposer(device: torch.device | str = "cpu") -> Proposer:
    """The embedded proposer, frozen. Raises `VlmlabError` if its file is missing or changed."""
    return copy.deepcopy(_read()).to(device)  # a module that others hold stays where it is


@functools.lru_cache(maxsize=1)
def _read() -> Proposer:
    card = data_path("proposer", "proposer.json")
    try:
        expected = json.loads(card.read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError) as error:
        raise VlmlabError(f"{card} is missing or damaged; build it again: vlmlab build proposer") from error
    path = verified(data_path("proposer", "proposer.safetensors"), expected, "build it again: vlmlab build proposer")
    with LocalRandom(0):  # whoever asks first must not draw more than who asks later
        proposer = Proposer()
    proposer.load_state_dict({name: value.float() for name, value in load_file(path).items()}, strict=False)
    return proposer.requires_grad_(False).eval()


def proposer_fingerprint() -> str:
    """16 hexadecimal digits that change with the proposer's weights."""
    return sha256(data_path("proposer", "proposer.safetensors"))[:16]
