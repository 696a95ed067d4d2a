"""PB-OVD: words of a caption become boxes by an activation map, and a detector is pretrained on them.

Gao et al., "Open Vocabulary Object Detection with Pseudo Bounding-Box Labels", arXiv 2111.09452; code: salesforce/PB-OVD.

Captions name more than anybody has boxed, and a vision-language model knows where a word lies in its image, roughly. A
proposal that covers this place well becomes the box of the word:

    A_w  = mean over heads of  a * relu(d s_w / d a)        attention a to the places, s_w how well image and word agree     (1)
    A_w  to 0..1, set to 0 below half of its maximum, enlarged to the image                                              (2)
    r*_w = argmax_r  ( sum of A_w inside r ) / sqrt(area of r)       over the proposals                                  (3)
    pretraining: (r*_w, w) are the only boxes, of base and new classes;   CE with background at 0.2 + zero background    (4)
    finetuning:  granted boxes and names of base classes; the embedding layer (the head's last) is frozen               (5)

A word is found in a caption as a whole word (`datasets.captions.said`); of several objects with that name one box is made.

What differs from the release, first its teacher: there (1) is the cross-attention of ALBEF's text encoder (block 8 of 12), with
the gradient of its image-text matching. A CLIP has no cross-attention, so a here is the attention of the class token in the last
block of the image tower, and s_w the scaled cosine with the word (`maps` = "attention"), or A_w is the relevance relu(cos) of
MaskCLIP's local features (`maps` = "patches"). It is a weaker teacher than the paper's. `maps` = "random" and "largest" choose a
proposal without looking, for comparison. For the rest see `dense.region_learner`; both stages have one batch size.

Dimensions: N images, B of them at once, n pairs of an image and a word, P proposals, H heads, T = h w places, S side,
C classes, e joint width.
"""

from __future__ import annotations

import dataclasses
import hashlib
import typing

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmlab.backbones.blocks import finish, project
from vlmlab.datasets.captions import said
from vlmlab.errors import VlmlabError
from vlmlab.methods.dense.cam import unit_range
from vlmlab.methods.dense.pseudo_labels import PseudoLabels
from vlmlab.methods.dense.region_learner import EMBEDDED
from vlmlab.methods.dense.student import Student, StudentRecipe
from vlmlab.methods.method import Batch, option, rate_by_step
from vlmlab.registry import register

MAPS = ("attention", "patches", "random", "largest")
SHARE = 0.5  # of the maximum of a map, below which it counts as 0


@register(
    "pb_ovd",
    title="PB-OVD: Open Vocabulary Object Detection with Pseudo Bounding-Box Labels",
    paper="arXiv:2111.09452",
    year=2022,
    section="7.1.3",
    family="detection",
    setup="open-vocabulary",
    learns="a head on regions",
    tasks=("detection",),
    needs=("image blocks",),
)
class PBOVD(Student):
    """Pretraining on the boxes of caption words, then finetuning on base boxes."""

    grounded = "boxes and captions"

    @dataclasses.dataclass
    class Config(StudentRecipe):
        maps: str = option("attention", "where a word lies", choices=MAPS)
        background: float = option(0.2, "weight of background in the cross-entropy", 0.0, 1.0)
        epochs: int = option(10, "epochs of pretraining on pseudo boxes", 1, 10000)
        finetune_epochs: int = option(11, "epochs of finetuning on base boxes; 0: none", 0, 10000)
        batch_size: int = option(64, "images a step", 1, 4096)
        lr: float = option(0.02, "learning rate of pretraining", 0.0, 10.0)
        finetune_lr: float = option(5e-4, "learning rate of finetuning", 0.0, 10.0)
        weight_decay: float = option(1e-4, "weight decay", 0.0, 1.0)

    embedded: typing.ClassVar[dict] = EMBEDDED | {"epochs": 6, "finetune_epochs": 4, "finetune_lr": 3e-4}

    def prepare(self, task) -> None:
        super().prepare(task)
        images = self.learns_from(task)
        if not images.captioned:
            raise VlmlabError("PB-OVD learns from captions, and these images have none; choose tableau, which has them")
        self.words = said([images.caption(i) for i in range(len(images))], self.classes).nonzero()
        self.pseudo = self.boxes_of(images, self.words.to(self.backbone.device))

    @classmethod
    def needs(cls, config) -> tuple[str, ...]:
        return {"attention": ("image blocks",), "patches": ("local features",)}.get(config.maps, ())

    @property
    def distils(self) -> bool:
        return False

    # --- from words to boxes -----------------------------------------------------------------------------------------

    def boxes_of(self, images, words: Tensor) -> PseudoLabels:
        """The box of every word, `words` [N, 2] pairs of an image and a class: (1) to (3)."""
        most = int(words[:, 0].bincount(minlength=len(images)).max()) if len(words) else 0
        place, regions = rank(words), self.regions
        scores = self.coverage(images, words)  # [n, P]
        there = regions.there[words[:, 0]]
        best = scores.masked_fill(~there, -1.0).argmax(1)
        able = there.any(1)
        image, slot = words[able, 0], place[able]
        shape = (len(images), most)
        found = PseudoLabels(
            regions.boxes.new_zeros(*shape, 4),
            torch.zeros(shape, dtype=torch.long, device=words.device),
            regions.boxes.new_zeros(shape),
            torch.zeros(shape, dtype=torch.bool, device=words.device),
        )
        found.boxes[image, slot] = regions.boxes[image, best[able]]
        found.labels[image, slot], found.weights[image, slot] = words[able, 1], 1.0
        found.there[image, slot] = True
        return found

    def coverage(self, images, words: Tensor) -> Tensor:
        """The score (3) of every proposal for every word, [n, P]."""
        boxes = self.regions.boxes[words[:, 0]]
        if self.config.maps == "random":
            return torch.rand(boxes.shape[:2], device=boxes.device)
        if self.config.maps == "largest":
            return (boxes[..., 2:] - boxes[..., :2]).prod(-1)
        maps = self.maps_of(images, words)
        return covered(maps, boxes, self.backbone.image_size)

    def maps_of(self, images, words: Tensor) -> Tensor:
        """A_w of (1), [n, h, w]; from the disk if they are there."""
        most = int(words[:, 0].bincount(minlength=len(images)).max()) if len(words) else 0
        digest = hashlib.sha256(words.cpu().numpy().tobytes() + self.text.cpu().numpy().tobytes()).hexdigest()[:16]

        def compute(positions: range) -> dict[str, Tensor]:
            pixels, _ = self.framed([images.images(i) for i in positions])
            own = words[(words[:, 0] >= positions.start) & (words[:, 0] < positions.stop)]
            first = own - own.new_tensor([positions.start, 0])
            maps = self.word_maps(pixels, first)
            padded = maps.new_zeros(len(pixels), most, *maps.shape[1:])
            padded[first[:, 0], rank(own)] = maps
            return {"maps": padded}

        stored = self.learned.stored(images, f"words {self.config.maps} {digest}", compute)["maps"]
        return stored[words[:, 0], rank(words)]

    def word_maps(self, images: Tensor, words: Tensor) -> Tensor:
        """A_w of (1) in images [B, 3, S, S] for pairs [n, 2] of an image and a class: [n, h, w]."""
        image, text = self.backbone.image, self.text[words[:, 1]]
        grid = image.grid(*images.shape[-2:])
        if self.config.maps == "patches":
            with torch.no_grad():
                local = F.normalize(image.local_features(images), dim=1)[words[:, 0]]
                return torch.einsum("nehw,ne->nhw", local, text).clamp_min(0)
        with torch.no_grad():
            last, x = image.last_block(images)
            x = x[words[:, 0]]
            q, k, v = project(last, last.ln_1(x), "qkv")
            attention = (q[:, :, :1] @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)  # [n, H, 1, 1 + T]
        with torch.enable_grad():
            attention = attention.detach().requires_grad_()
            feature = F.normalize(image.joint(finish(last, x[:, :1], attention @ v))[:, 0].float(), dim=-1)
            agreement = self.backbone.logit_scale.detach() * (feature * text).sum()
            (gradient,) = torch.autograd.grad(agreement, attention)
        return attended(attention.detach()[:, :, 0, 1:], gradient[:, :, 0, 1:]).float().unflatten(1, grid)

    # --- learning ----------------------------------------------------------------------------------------------------

    def stages(self, task) -> list:
        """Pretraining, then finetuning if there is any."""
        images = self.learns_from(task)
        return [images, images] if self.config.finetune_epochs else [images]

    @property
    def planned_epochs(self) -> int:
        return self.config.epochs if self.stage == 0 else self.config.finetune_epochs

    def learning_rate(self, step: int, steps: int) -> float:
        lr = self.config.lr if self.stage == 0 else self.config.finetune_lr
        return rate_by_step(step, steps, lr, max(1, steps // 10))

    def optimizer(self, steps: int):
        self.student.project.requires_grad_(self.stage == 0)  # (5)
        return super().optimizer(steps)

    def loss(self, batch: Batch) -> Tensor:
        index = batch.index.to(self.regions.maps.device)
        if self.stage == 0:
            return self.named_loss(self.regions.at(index), self.pseudo.at(index), range(len(self.text)))  # (4)
        return self.named_loss(self.regions.at(index), self.granted.at(index), self.base.tolist())  # (5)


def rank(words: Tensor) -> Tensor:
    """For pairs [n, 2] ordered by image, the place of each among the pairs of its image: [n]."""
    image = words[:, 0].contiguous()
    return torch.arange(len(image), device=image.device) - torch.searchsorted(image, image)


def attended(attention: Tensor, gradient: Tensor) -> Tensor:
    """(1): mean over heads of attention times what is positive of its gradient; both [n, H, T], result [n, T]."""
    return (attention * gradient.clamp_min(0)).mean(1)


def covered(maps: Tensor, boxes: Tensor, side: int) -> Tensor:
    """(2) and (3): the score of every box for its map.

    Args:
        maps: [n, h, w], any range. boxes: [n, P, 4] in pixels of an image of `side` x `side`.

    Returns: [n, P]; -1 for a box that leaves the image or has no area. Maps are enlarged by repeating places, and the border
    of a box is cut to whole pixels, both as in the release.
    """
    maps = unit_range(maps)
    maps = F.interpolate(maps[:, None], (side, side), mode="nearest")[:, 0]
    maps = maps * (maps >= SHARE * maps.amax((1, 2), keepdim=True))
    total = F.pad(maps.double().cumsum(1).cumsum(2), (1, 0, 1, 0))  # total[y, x]: sum of what lies above and left
    x0, y0, x1, y1 = boxes.clamp(0, side).long().unbind(-1)
    row = torch.arange(len(maps), device=maps.device)[:, None]
    inside = total[row, y1, x1] - total[row, y0, x1] - total[row, y1, x0] + total[row, y0, x0]
    area = (boxes[..., 2:] - boxes[..., :2]).clamp_min(0).prod(-1)
    good = (area > 0) & (boxes >= 0).all(-1) & (boxes <= side).all(-1)
    return torch.where(good, inside.float() / area.clamp_min(1e-6).sqrt(), -1.0)
