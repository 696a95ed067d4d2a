"""LSeg: Language-driven Semantic Segmentation (arXiv:2201.03546, ICLR 2022).

Survey, section 7.2.2. An ordinary segmentation network whose classifier is not learned: every pixel is sent into CLIP's joint
space, near the text of its label, by cross-entropy among the labels. The text tower is frozen, so it decides what "near" means
for a word that had no pixel, and the list of words may be changed when the network is done.

    F = n(student(x))           [e, S/2, S/2], a unit vector per pixel                               (1)
    P = (1 / 0.07) F T^T        T the unit vectors of the bare class names; the factor is not learned (2)
    P <- block(P), `depth` times, `activation` between; one kernel of 3 x 3 for all labels              (3)
    P enlarged twice, bilinear, corners aligned                                                      (4)
    L = mean over pixels of CE(P, label), among the words whose masks are granted                    (5)

The block (3) is off in the release's default. "depthwise" moves every label's map by the same kernel; "bottleneck" adds to it
the maximum over the labels. Both say the same of a label wherever it stands in the list.

What differs from the release: its student is a DPT on a ViT-L that was trained on ImageNet, and on which the text side has no
part; here it is the pixel encoder of `dense.pixels` on the frozen tokens of the same CLIP, with a linear path, for there is no
ImageNet. All of it is new, so the rate is that of the release's new layers, ten times its base of 0.004, and falls by step as
(1 - k/K)^0.9 (there, by epoch). Pixels of classes without granted masks count nothing (5), as do those without a class; the
loss is taken at the maps' own half size, where the release enlarges them first. The release multiplies in half precision. Its
zero-shot figures are of two words per image, the class and "others", on PASCAL-5i and COCO-20i; here all words compete.

Dimensions: B images, C classes, S image side, h x w places, e joint width, D width of the tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.errors import VlmlabError
from vlmlab.methods.dense.pixels import Frozen, TextPixels, halved, thirds, tokens
from vlmlab.methods.dense.segmenter import Segmenter
from vlmlab.methods.method import Batch, Recipe, option
from vlmlab.methods.templates import HELP, choose, spoken
from vlmlab.registry import register

SCALE = 1 / 0.07
NOT_COUNTED = -1
ACTIVATIONS = {"relu": F.relu, "lrelu": F.leaky_relu, "tanh": torch.tanh}


@register(
    "lseg",
    title="LSeg: Language-driven Semantic Segmentation",
    paper="arXiv:2201.03546",
    year=2022,
    section="7.2.2",
    family="segmentation",
    setup="open-vocabulary",
    tasks=("segmentation",),
    learns="a student network",
    needs=("image blocks",),
)
class LSeg(Segmenter):
    """Pixels near the texts of their labels."""

    @dataclasses.dataclass
    class Config(Recipe):
        epochs: int = option(240, "epochs", 1, 10000)
        batch_size: int = option(16, "training images a step", 1, 4096)
        lr: float = option(0.04, "learning rate at the start", 0.0, 10.0)
        weight_decay: float = option(1e-4, "weight decay", 0.0, 1.0)
        block: str = option("none", "what is done to the maps (3)", choices=("none", "depthwise", "bottleneck"))
        depth: int = option(1, "how often", 1, 100)
        activation: str = option("lrelu", "between them", choices=tuple(ACTIVATIONS))
        templates: str = option("name", HELP)

    # Chosen in a study of other scenes; bare names are no sentences that the embedded text towers have read.
    embedded: ClassVar[dict] = {
        "epochs": 7,
        "optimizer": "adamw",
        "lr": 3e-3,
        "weight_decay": 1e-3,
        "templates": "dataset",
    }

    def prepare(self, task) -> None:
        super().prepare(task)
        if not task.train.dense:
            raise VlmlabError("LSeg learns from images with masks; choose tableau")
        tower = self.backbone.image
        self.after = thirds(tower.depth)
        config = self.config
        self.net = Pixels(
            len(self.after) * tower.width, self.backbone.embed_dim, config.block, config.depth, config.activation
        ).to(self.backbone.device)
        self.taught = list(task.base)
        self.taught_words = self.words[self.taught]
        self.frozen = Frozen(self, task.train, self.read)

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        """Other words; the student stays as it is."""
        super().set_classes(classes, templates)
        self.words = self.backbone.class_embeddings(spoken(classes), choose(self.config.templates, templates))  # T

    def read(self, images: Tensor) -> Tensor:
        """Frozen tokens [B, D, h, w], in half precision, as they are kept."""
        return tokens(self.backbone.image, images, self.after).half()

    def learning_rate(self, step: int, steps: int) -> float:
        return self.config.lr * (1 - step / steps) ** 0.9 if step < steps else 0.0

    def logits(self, batch: Batch) -> Tensor:
        """[B, C, S, S], of all words at once."""
        maps = self.net(batch.images, self.read(batch.images), self.words)
        size = batch.images.shape[-2:]
        return maps if maps.shape[-2:] == size else F.interpolate(maps, size, mode="bilinear", align_corners=True)

    def loss(self, batch: Batch) -> Tensor:
        """(5), at the maps' own size of S/2: what is enlarged says nothing more."""
        maps = self.net.maps(batch.images, self.frozen.of(batch), self.taught_words)
        target = renumbered(halved(batch.masks), self.taught)
        counted = (target != NOT_COUNTED).sum().clamp_min(1)
        return F.cross_entropy(maps, target, ignore_index=NOT_COUNTED, reduction="sum") / counted


class Pixels(nn.Module):
    """Images [B, 3, S, S], tokens [B, D, h, w] and words [C, e] -> scores [B, C, S, S]."""

    def __init__(
        self, token_width: int, embed_dim: int, block: str = "none", depth: int = 1, activation: str = "relu"
    ) -> None:
        super().__init__()
        self.student = TextPixels(token_width, embed_dim)
        self.block = None if block == "none" else Block(block == "bottleneck")
        self.depth, self.activation = depth, ACTIVATIONS[activation]

    def forward(self, images: Tensor, places: Tensor, words: Tensor) -> Tensor:
        return F.interpolate(self.maps(images, places, words), scale_factor=2, mode="bilinear", align_corners=True)

    def maps(self, images: Tensor, places: Tensor, words: Tensor) -> Tensor:
        """Scores (1) to (3) at half size, [B, C, S/2, S/2]."""
        return self.compared(self.student(images, places), words)

    def compared(self, features: Tensor, words: Tensor) -> Tensor:
        """Scores [B, C, H, W] of pixels [B, e, H, W] with words [C, e], neither normalised (1) to (3)."""
        maps = SCALE * torch.einsum("behw,ce->bchw", F.normalize(features, dim=1), F.normalize(words, dim=-1))
        if self.block is None:
            return maps
        for _ in range(self.depth - 1):
            maps = self.activation(self.block(maps))
        return self.block(maps)


class Block(nn.Module):
    """One 3 x 3 kernel for the map of every label, [B, C, H, W] -> the same; `bottleneck` adds the maximum over the labels."""

    def __init__(self, bottleneck: bool) -> None:
        super().__init__()
        self.bottleneck = bottleneck
        self.depthwise = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        moved = self.depthwise(maps.flatten(0, 1)[:, None])[:, 0].unflatten(0, maps.shape[:2])
        return moved + maps.amax(1, keepdim=True) if self.bottleneck else moved


def renumbered(masks: Tensor, classes: Sequence[int]) -> Tensor:
    """Class indices [B, H, W] as positions in `classes`; NOT_COUNTED for all others, and for what has no class."""
    most = max([*classes, int(masks.max())])
    table = torch.full((most + 1,), NOT_COUNTED, device=masks.device)
    table[list(classes)] = torch.arange(len(classes), device=masks.device)
    return torch.where(masks >= 0, table[masks.clamp_min(0)], NOT_COUNTED)
