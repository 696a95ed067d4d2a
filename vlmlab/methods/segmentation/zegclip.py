"""ZegCLIP: Towards Adapting CLIP for Zero-shot Semantic Segmentation (arXiv:2212.03588, CVPR 2023).

Survey, section 7.2.2. Systems that segment first run CLIP once per segment. ZegCLIP has one stage: the words ask, the places
of CLIP's own image tower answer, and a map is what a word and a place have in common. A network that is taught the seen words
alone forgets the others. Three things keep it from that: the tower is frozen and learns prompts alone; a word's map is right or
wrong by itself and competes with no other; and a word asks together with the image.

    x, g = tower(image, with prompts W p_j before block j),  unit vectors of places and of the class token     (1)
    q_c = linear([g * t_c ; t_c])                               the relationship descriptor, t_c a unit vector  (2)
    q <- LN(q + attention(q, x, x)),  q <- LN(q + MLP(q))       in every layer but the last                     (3)
    M_c = mean over heads of (W_q q_c) . (W_k x) / sqrt(d)      in the last one, where no softmax follows       (4)
    L = 100 focal(M, y) + dice(M, y)                            focal of all taught words, dice of those shown  (5)
    S_c = sigmoid(M_c) - 0.1 [c was taught]                     argmax over all words                           (6)

Focal and dice are sums over words and images, and both are divided by the number of true masks in the batch. A pixel without
granted class is background for all taught words in the focal loss, as in the release.

Transductive ("self_training"): in the second half of the epochs such a pixel is taken for the new word whose map is strongest
there, all words are taught, and 0.1 is taken off none.

The release's tower adds its class embedding twice, and a learned norm stands between its last block and its own last norm; both
are here. What differs: dropout (0.1) and stochastic depth are left out; in its last layer, values, MLP and norms, which no loss
reaches, are left out; its whole image is one window (it slides one of 512 pixels); the loss is taken at half the image's side.
The release warms up for 1,500 of 20,000 steps, two epochs here, and its transductive half starts from a first half that was cut
off in its schedule, where here each half has a schedule of its own. The embedded settings start as CLIP's own comparison
("cosine"): vectors come in the length of their width's root, the descriptor, queries and keys at the identity,
so that M_c = 20 cos(x, t_c) - 5; the constant is learned. From noise, a minute is not enough.

Dimensions: B images, C words, e joint width, d width of a head, n prompts, D width and J blocks of the tower, T = h w places, S image side.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.backbones.blocks import run_block
from vlmlab.errors import VlmlabError
from vlmlab.methods.dense.mask_queries import dice_loss, focal_loss
from vlmlab.methods.dense.pixels import halved
from vlmlab.methods.dense.segmenter import Segmenter
from vlmlab.methods.method import Batch, Recipe, option
from vlmlab.methods.segmentation.lseg import renumbered
from vlmlab.methods.segmentation.maskclip_plus import pseudo_labelled
from vlmlab.methods.templates import HELP, choose, spoken
from vlmlab.registry import register

LAST_RATE, POWER, FIRST_SHARE = 1e-6, 0.9, 1e-6
START_SCALE, START_LEVEL = 20.0, -5.0


@register(
    "zegclip",
    title="ZegCLIP: Towards Adapting CLIP for Zero-shot Semantic Segmentation",
    paper="arXiv:2212.03588",
    year=2023,
    section="7.2.2",
    family="segmentation",
    setup="open-vocabulary",
    tasks=("segmentation",),
    learns="deep visual prompts and a decoder",
    needs=("image blocks",),
)
class ZegCLIP(Segmenter):
    """Words ask the places of a prompted tower, each together with the image."""

    @dataclasses.dataclass
    class Config(Recipe):
        epochs: int = option(30, "epochs of training", 1, 10000)
        batch_size: int = option(16, "training images a step", 1, 4096)
        optimizer: str = option("adamw", "optimiser", choices=("sgd", "adamw"))
        lr: float = option(2e-4, "learning rate after the warm-up", 0.0, 10.0)
        weight_decay: float = option(0.01, "weight decay", 0.0, 1.0)
        warmup_epochs: int = option(2, "first epochs, in which the rate rises", 0, 100)
        prompts: int = option(10, "prompts before every block of the tower; 0: the tower as it is", 0, 1000)
        layers: int = option(3, "layers of the decoder", 1, 100)
        heads: int = option(8, "heads of its attention; they divide the joint width", 1, 64)
        descriptor: bool = option(True, "a word asks together with the image (2); without it, alone")
        loss: str = option(
            "separate",
            "separate: focal and dice loss of every word by itself; exclusive: cross-entropy among the words",
            choices=("separate", "exclusive"),
        )
        calibration: float = option(0.1, "what taught classes lose on the maps", 0.0, 1.0)
        self_training: bool = option(False, "transductive: pixels without label teach new words in a second half")
        start: str = option(
            "random", "random, or cosine: as the cosine of place and word", choices=("random", "cosine")
        )
        templates: str = option("a photo of a {}", HELP)

    # Of a study on other scenes.
    embedded: ClassVar[dict] = {
        "epochs": 4,
        "lr": 2e-3,
        "warmup_epochs": 0,
        "prompts": 5,
        "layers": 1,
        "heads": 4,
        "start": "cosine",
        "templates": "dataset",
    }

    def prepare(self, task) -> None:
        super().prepare(task)
        if not task.train.dense:
            raise VlmlabError("ZegCLIP learns from images with masks; choose tableau")
        tower, embed = self.backbone.image, self.backbone.embed_dim
        if embed % self.config.heads:
            raise VlmlabError(f"the joint width of {embed} does not divide into {self.config.heads} heads")
        self.seen, self.new = list(task.base), list(task.new)
        self.taught = {self.classes[c] for c in self.seen}
        self.task_words = self.words
        self.prompts = Prompts(self.config.prompts, tower.depth, tower.width, tower.stride[0])
        self.decoder = Decoder(
            embed, self.config.layers, self.config.heads, self.config.descriptor, self.config.start == "cosine"
        )
        self.to(self.backbone.device)

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        """Other words; what was learned stays, and classes that were taught are known by their names."""
        super().set_classes(classes, templates)
        self.words = self.backbone.class_embeddings(spoken(classes), choose(self.config.templates, templates))  # [C, e]

    def stages(self, task) -> list:
        return [task.train] * (2 if self.config.self_training else 1)

    @property
    def planned_epochs(self) -> int:
        return max(1, self.config.epochs // 2) if self.config.self_training else self.config.epochs

    def learning_rate(self, step: int, steps: int) -> float:
        """A power that falls to `LAST_RATE`, times a share that rises in a straight line over the warm-up."""
        rate = LAST_RATE + (self.config.lr - LAST_RATE) * max(0.0, 1 - step / steps) ** POWER
        warm = self.config.warmup_epochs * self.batches
        return rate if step >= warm else rate * (1 - (1 - step / warm) * (1 - FIRST_SHARE))

    def maps_of(self, images: Tensor, words: Tensor) -> Tensor:
        """Logits (4) of unit vectors of words [C, e] on normalised images [B, 3, S, S]: [B, C, h, w]."""
        places, image = prompted(self.backbone.image, images, self.prompts)
        grid = self.backbone.image.grid(*images.shape[-2:])
        return self.decoder(places, image, words).unflatten(2, grid)

    def loss(self, batch: Batch) -> Tensor:
        """(5), or the cross-entropy among the words."""
        masks = halved(batch.masks)
        words, classes = self.task_words[self.seen], self.seen
        if self.stage:  # the transductive half
            words, classes = self.task_words, list(range(len(self.task_words)))
        maps = enlarged(self.maps_of(batch.images, words), masks.shape[-2:])
        if self.stage:
            masks = pseudo_labelled(masks, maps.detach(), self.new)
        target = renumbered(masks, classes)
        if self.config.loss == "exclusive":
            counted = (target >= 0).sum().clamp_min(1)
            return F.cross_entropy(maps, target, ignore_index=-1, reduction="sum") / counted
        return separate_loss(maps, target)

    def logits(self, batch: Batch) -> Tensor:
        """[B, C, S, S], the probabilities (6)."""
        maps = enlarged(self.maps_of(batch.images, self.words), batch.images.shape[-2:])
        scores = maps.softmax(1) if self.config.loss == "exclusive" else maps.sigmoid()
        if not self.config.self_training:
            taught = [c for c, name in enumerate(self.classes) if name in self.taught]
            scores[:, taught] -= self.config.calibration
        return scores


class Prompts(nn.Module):
    """What is learned in the tower: n prompts before each of J blocks, one map W for all, and a norm behind the last block."""

    def __init__(self, count: int, depth: int, width: int, patch: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.tokens: nn.Parameter | None = None
        if count:
            bound = math.sqrt(6 / (3 * patch**2 + width))
            self.tokens = nn.Parameter((2 * torch.rand(depth, count, width) - 1) * bound)
            self.proj = nn.Linear(width, width)
            nn.init.kaiming_normal_(self.proj.weight, mode="fan_out")

    def forward(self) -> Tensor | None:
        """[J, n, D], or None if there is no prompt."""
        return None if self.tokens is None else self.proj(self.tokens)


def prompted(tower, images: Tensor, prompts: Prompts) -> tuple[Tensor, Tensor]:
    """Unit vectors (1) of the places [B, T, e] and of the whole image [B, e], for normalised images [B, 3, S, S].

    Gradients reach the prompts through the frozen `tower` (`backbone.image`).
    """
    visual, own = tower.visual, prompts()
    with torch.no_grad():
        grid = tower.grid(*images.shape[-2:])
        x = visual.ln_pre(tower.placed(tower.patches(images), grid, "bilinear", times=2))  # twice, as in the release
    count = x.shape[1]
    for j, block in enumerate(visual.transformer.resblocks):
        if own is not None:
            x = torch.cat([x[:, :count], own[j].to(x.dtype).expand(len(x), -1, -1)], 1)
        x = run_block(block, x)
    x = tower.joint(prompts.norm(x[:, :count].float()).to(x.dtype)).float()
    x = F.normalize(x, dim=-1)
    return x[:, 1:], x[:, 0]


class Decoder(nn.Module):
    """Places [B, T, e], the image [B, e] and words [C, e], all unit vectors -> logits [B, C, T] (2) to (4)."""

    def __init__(self, width: int, layers: int, heads: int, descriptor: bool = True, cosine: bool = False) -> None:
        super().__init__()
        self.descriptor, self.cosine = descriptor, cosine
        self.q_proj = nn.Linear(2 * width if descriptor else width, width)
        self.layers = nn.ModuleList([Layer(width, heads) for _ in range(layers - 1)])
        self.last = Comparison(width, heads)
        self.level = nn.Parameter(torch.zeros(())) if cosine else None
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        if cosine:
            self.start_as_cosine()

    def forward(self, places: Tensor, image: Tensor, words: Tensor) -> Tensor:
        words = words.expand(len(image), -1, -1)
        if self.cosine:
            root = words.shape[-1] ** 0.5
            places, image, words = root * places, root * image, root * words
        asked = torch.cat([image[:, None] * words, words], -1) if self.descriptor else words
        q = self.q_proj(asked)
        for layer in self.layers:
            q = layer(q, places)
        maps = self.last(q, places).mean(1)
        return maps if self.level is None else maps + self.level

    @torch.no_grad()
    def start_as_cosine(self) -> None:
        """Begin as `START_SCALE` cos(place, word) + `START_LEVEL`, up to the norms of the layers before the last."""
        width = self.q_proj.out_features
        self.q_proj.weight.zero_()
        self.q_proj.weight[:, -width:].copy_(torch.eye(width))
        for layer in self.layers:
            nn.init.zeros_(layer.proj.weight)
            nn.init.zeros_(layer.linear2.weight)
        self.last.q.weight.copy_(START_SCALE / math.sqrt(width / self.last.heads) * torch.eye(width))
        self.last.k.weight.copy_(torch.eye(width))
        self.level.fill_(START_LEVEL)


class Comparison(nn.Module):
    """Queries [B, C, e] and places [B, T, e] -> their products per head [B, heads, C, T], over the root of a head's width."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, queries: Tensor, places: Tensor) -> Tensor:
        q, k = self.split(self.q(queries)), self.split(self.k(places))
        return q @ k.mT * q.shape[-1] ** -0.5

    def split(self, x: Tensor) -> Tensor:
        """[B, n, e] -> [B, heads, n, d]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Layer(Comparison):
    """(3): queries [B, C, e] look at places [B, T, e], then an MLP of four times the width; norms behind the sums."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.v, self.proj = nn.Linear(width, width), nn.Linear(width, width)
        self.linear1, self.linear2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, queries: Tensor, places: Tensor) -> Tensor:
        weights = super().forward(queries, places).softmax(-1)
        x = self.norm2(queries + self.proj((weights @ self.split(self.v(places))).transpose(1, 2).flatten(2)))
        return self.norm3(x + self.linear2(F.relu(self.linear1(x))))


def separate_loss(maps: Tensor, target: Tensor, focal_weight: float = 100.0, dice_weight: float = 1.0) -> Tensor:
    """(5) of logits [B, C, H, W] and the taught word [B, H, W] of every pixel, negative where there is none."""
    words = torch.arange(maps.shape[1], device=maps.device)
    masks = (target[:, None] == words[:, None, None]).flatten(2).to(maps.dtype)  # [B, C, H W]
    shown = masks.any(2)
    count = max(1, int(shown.sum()))
    maps = maps.flatten(2)
    focal = focal_loss(maps.flatten(0, 1), masks.flatten(0, 1), count)
    return focal_weight * focal + dice_weight * dice_loss(maps[shown], masks[shown], count)


def enlarged(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps [B, C, h, w] at `size`, bilinear."""
    return F.interpolate(maps, tuple(size), mode="bilinear")
