"""CLIPSeg: Image Segmentation Using Text and Image Prompts (arXiv:2112.10003, CVPR 2022).

Survey, section 7.2.2. CLIP stays frozen. A small transformer reads what its image tower thought on the way, and is told what to
look for by one vector of the joint space. A sentence gives such a vector, and so does an image: whoever cannot name a thing
shows one. In training the two are mixed, so that the decoder knows the way between them.

    a_1 = reduce_1(X_1) * mul(c) + add(c),  a_1 <- block_1(a_1)             X_j the activations, the deepest first      (1)
    a_j = block_j(reduce_j(X_j) + a_{j-1})                                                                        (2)
    map = transposed convolution of the places of the last a; the class token is dropped                          (3)
    c = w f_T(sentence) + (1 - w) f_I(image prompt),  w ~ U(0, most_text), 1 where there is no image prompt        (4)
    L = mean over pixels of BCE(map, mask of the phrase); in a share `negatives` the phrase is absent and the mask empty (5)

A map is of one phrase. Among several words the largest logit wins.

An image prompt is a thing cut out (its box, with a tenth of its sides around it, zeros beside it that make it a square, the
nearest pixels), its surroundings blurred (standard deviation 3) and scaled by a tenth in the normalised image, which brings
them near the mean colour. With `crop` = "square", which the embedded towers are measured with, it shows the image instead of
zeros.

With `start` = "cosine" the decoder begins as the cosine of every place with the prompt: instead of the deepest activation it
reads MaskCLIP's local features in the joint space, `reduce_1` and `mul` are their first singular directions, `add` and the
residual branches are zero, the norms stand before the layers, and vectors of the joint space have the length sqrt(e). From a
random start a minute of training teaches "any thing", and the prompt is not heard.

What differs from the release: it draws phrases of PhraseCut, here they are the names of the classes whose masks are granted;
pixels of other classes (UNLABELLED) and without class are left out of (5), and a negative phrase is one that the image does
not show, where the release draws any other. Images are normalised as CLIP's (the release: as ImageNet's), and whole, not cut
at random. There is no dropout. Among several words each is the mean over the sentences.

Dimensions: B images, C classes, T = h w places, d width of the decoder, e joint width, S image side, m image prompts.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align
from torchvision.transforms.functional import gaussian_blur

from vlmlab.backbones.blocks import finish, project, run_block
from vlmlab.errors import VlmlabError
from vlmlab.methods.dense.crops import grown
from vlmlab.methods.dense.mask_crops import mask_boxes
from vlmlab.methods.dense.segmenter import Segmenter
from vlmlab.methods.method import Batch, Recipe, option
from vlmlab.methods.templates import HELP, choose, spoken
from vlmlab.registry import register

BLUR, DARK, CONTEXT = 3.0, 0.1, 0.1
CROPS = ("padded", "square")
OF_BLOCKS = 12  # what `after` counts in
AT_ONCE = 2048  # maps that are decoded together: bounds the memory


@register(
    "clipseg",
    title="CLIPSeg: Image Segmentation Using Text and Image Prompts",
    paper="arXiv:2112.10003",
    year=2022,
    section="7.2.2",
    family="segmentation",
    setup="open-vocabulary",
    tasks=("segmentation",),
    learns="a small decoder that is told what to look for",
    needs=("image blocks",),
)
class CLIPSeg(Segmenter):
    """A decoder on frozen activations, prompted by a sentence or by an image."""

    @dataclasses.dataclass
    class Config(Recipe):
        epochs: int = option(
            4, "epochs; the release makes 20,000 steps of 64 phrases, four epochs of PhraseCut", 1, 10000
        )
        batch_size: int = option(64, "training images a step, a phrase of each", 1, 4096)
        optimizer: str = option("adamw", "optimiser", choices=("sgd", "adamw"))
        lr: float = option(1e-3, "learning rate at the start", 0.0, 10.0)
        last_lr: float = option(1e-4, "learning rate at the end of the cosine", 0.0, 10.0)
        weight_decay: float = option(0.01, "weight decay", 0.0, 1.0)
        after: str = option(
            "10, 8, 4",
            "blocks that are read, in that order, counted from 1 in a tower of twelve; another depth scales them",
        )
        width: int = option(64, "width of the decoder", 4, 4096)
        heads: int = option(4, "heads of its attention; they divide the width", 1, 64)
        feedforward: int = option(2048, "width inside of its layers", 1, 65536)
        most_text: float = option(0.5, "largest weight of the sentence where there is an image prompt", 0.0, 1.0)
        negatives: float = option(0.2, "share of phrases that the image does not show", 0.0, 1.0)
        prompts_per_class: int = option(12, "image prompts that are kept of a class; 0: sentences alone", 0, 10000)
        crop: str = option("padded", "what is around the box of an image prompt: zeros, or the image", choices=CROPS)
        start: str = option(
            "random", "random, or cosine: as the cosine of place and prompt", choices=("random", "cosine")
        )
        templates: str = option("clipseg9", HELP)

    embedded: ClassVar[dict] = {
        "epochs": 16,
        "batch_size": 48,
        "lr": 2e-3,
        "last_lr": 0.0,
        "weight_decay": 1e-3,
        "after": "12, 8, 4",
        "width": 48,
        "feedforward": 192,
        "crop": "square",
        "start": "cosine",
        "templates": "dataset",
    }

    def prepare(self, task) -> None:
        tower = self.backbone.image
        self.after = read_blocks(self.config.after, tower.depth)
        if self.config.width % self.config.heads:
            raise VlmlabError(f"a width of {self.config.width} does not divide into {self.config.heads} heads")
        super().prepare(task)
        self.keep(task)
        e, cosine = self.backbone.embed_dim, self.config.start == "cosine"
        widths = [e if cosine and j == 0 else tower.width for j in range(len(self.after))]
        self.decoder = Decoder(
            widths, e, min(self.config.width, e) if cosine else self.config.width, self.config.heads,
            self.config.feedforward, tower.stride, pre_norm=cosine,
        ).to(self.backbone.device)  # fmt: skip
        if cosine:
            places = self.activations[0][:, 1:].flatten(0, 1).float()
            _, _, directions = torch.linalg.svd(places[:: max(1, len(places) // 5000)], full_matrices=False)
            self.decoder.start_as_cosine(directions)

    def keep(self, task) -> None:
        """What of the training images is frozen: activations, the classes that their masks show, image prompts."""
        train, classes = task.train, len(task.classes)
        if not train.dense:
            raise VlmlabError("CLIPSeg learns from images with masks; choose tableau")
        activations, present, prompts = [], torch.zeros(len(train), classes, dtype=torch.bool), []
        count = torch.zeros(classes, dtype=torch.long)
        for at, images, frames in self.framed_in_turn(train):
            activations.append([x.half() for x in self.read(images)])
            semantic = torch.stack([f.truth(train.truth(i)).semantic.long() for f, i in zip(frames, at, strict=True)])
            for b, own in enumerate(semantic):
                present[at.start + b, own[own >= 0].unique()] = True
            pairs = present[at.start : at.stop].nonzero()  # of an image and a class that it shows
            rank = count[pairs[:, 1]] + _earlier(pairs[:, 1])
            pairs = pairs[rank < self.config.prompts_per_class]
            count += present[at.start : at.stop].sum(0)
            if len(pairs):
                masks = semantic[pairs[:, 0]] == pairs[:, 1, None, None]
                prompts.append((pairs[:, 1], self.image_prompts(images[pairs[:, 0]], masks.to(images.device))))
        if not present.any():
            raise VlmlabError("no mask of a class is granted; CLIPSeg has nothing to learn from")
        self.activations = [torch.cat(parts) for parts in zip(*activations, strict=True)]
        self.present, self.granted = present, present.any(0)
        e = self.backbone.embed_dim
        self.prompt_class = torch.cat([c for c, _ in prompts]) if prompts else torch.zeros(0, dtype=torch.long)
        self.prompts = torch.cat([p for _, p in prompts]) if prompts else self.text.new_zeros(0, e)

    @torch.no_grad()
    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        super().set_classes(classes, templates)
        sentences = choose(self.config.templates, templates)
        names = spoken(classes)
        vectors = [self.backbone.encode_text([sentence.format(name) for name in names]) for sentence in sentences]
        self.text = self.scaled(torch.stack(vectors, 1).float())  # [C, sentences, e]

    def scaled(self, vectors: Tensor) -> Tensor:
        """Vectors [..., e] of the joint space as the decoder takes them."""
        if self.config.start == "random":
            return vectors
        return F.normalize(vectors, dim=-1) * vectors.shape[-1] ** 0.5

    # --- what the frozen tower says ----------------------------------------------------------------------------------

    @torch.no_grad()
    def read(self, images: Tensor) -> list[Tensor]:
        """Activations [B, 1 + T, width] after the chosen blocks, in the order in which the decoder takes them.

        From the cosine start the first are MaskCLIP's local features, and the others are layer-normalised.
        """
        tower = self.backbone.image
        x, _ = tower._tokens(images)
        blocks, found = tower.visual.transformer.resblocks, {}
        cosine = self.config.start == "cosine"
        for j, block in enumerate(blocks, 1):
            if cosine and j == len(blocks):
                (values,) = project(block, block.ln_1(x), "v")
                local = self.scaled(tower.joint(finish(block, x, values)).float())
            x = run_block(block, x)
            if j in self.after:
                found[j] = F.layer_norm(x.float(), x.shape[-1:]) if cosine else x.float()
        ordered = [found[j] for j in self.after]
        return [local, *ordered[1:]] if cosine else ordered

    @torch.no_grad()
    def image_prompts(self, images: Tensor, masks: Tensor) -> Tensor:
        """What the masks [m, S, S] (bool, none empty) of normalised images [m, 3, S, S] show, as prompts [m, e]."""
        return self.scaled(self.backbone.encode_image(prompt_crops(images, masks, self.config.crop)).float())

    # --- learning and predicting -------------------------------------------------------------------------------------

    def learning_rate(self, step: int, steps: int) -> float:
        """A cosine from `lr` to `last_lr`."""
        low, high = self.config.last_lr, self.config.lr
        return low + (high - low) / 2 * (1 + math.cos(math.pi * step / steps))

    def loss(self, batch: Batch) -> Tensor:
        index = batch.index.cpu()
        classes = self.phrases(self.present[index])
        prompts = self.mixed(classes)
        there = index.to(self.activations[0].device)
        maps = self.decoder([x[there].float() for x in self.activations], prompts, self.grid(batch.images))
        wanted = (batch.masks == classes.to(batch.masks.device)[:, None, None]).float()
        counted = (batch.masks >= 0).float()
        loss = F.binary_cross_entropy_with_logits(maps.float(), wanted, reduction="none")
        return (loss * counted).sum() / counted.sum().clamp_min(1)

    def phrases(self, present: Tensor) -> Tensor:
        """A class [B] for each image: one of those `present` [B, C] in it, or (`negatives`) a granted one that is absent."""
        absent = self.granted & ~present
        negative = (torch.rand(len(present)) < self.config.negatives) & absent.any(1) | ~present.any(1)
        pool = torch.where(negative[:, None], absent, present).float()
        return torch.multinomial(pool, 1)[:, 0]

    def mixed(self, classes: Tensor) -> Tensor:
        """Prompts [B, e] of classes [B]: a sentence and an image prompt, mixed by chance (4)."""
        device = self.text.device
        sentence = torch.randint(self.text.shape[1], (len(classes),))
        text = self.text[classes.to(device), sentence.to(device)]
        if not len(self.prompts):
            return text
        candidates = (self.prompt_class == classes[:, None]).float()
        valid = candidates.any(1)
        candidates[~valid] = 1
        shown = self.prompts[torch.multinomial(candidates, 1)[:, 0].to(device)]
        weight = torch.where(valid, self.config.most_text * torch.rand(len(classes)), 1.0).to(device)[:, None]
        return weight * text + (1 - weight) * shown

    def grid(self, images: Tensor) -> tuple[int, int]:
        """(h, w) of the tower's places."""
        return self.backbone.image.grid(*images.shape[-2:])

    def logits(self, batch: Batch) -> Tensor:
        """[B, C, S, S], the map of every class by its sentences."""
        return self.maps_by(batch.images, self.text.mean(1))

    def maps_by(self, images: Tensor, prompts: Tensor) -> Tensor:
        """Logits [B, n, S, S] of normalised images [B, 3, S, S] for prompts [n, e], of sentences or of images, one at a time."""
        reduced = self.decoder.reduced(self.read(images))
        rows, found = max(1, AT_ONCE // len(prompts)), []
        for start in range(0, len(images), rows):
            own = [x[start : start + rows].repeat_interleave(len(prompts), 0) for x in reduced]
            count = len(own[0]) // len(prompts)
            maps = self.decoder.decoded(own, prompts.repeat(count, 1), self.grid(images))
            found.append(maps.unflatten(0, (count, len(prompts))))
        maps = torch.cat(found)
        return maps if maps.shape[-2:] == images.shape[-2:] else F.interpolate(maps, images.shape[-2:], mode="bilinear")


class Decoder(nn.Module):
    """Activations [B, 1 + T, widths[j]] and prompts [B, e] -> maps [B, S, S] of logits (1) to (3); names are the release's."""

    def __init__(
        self,
        widths: Sequence[int],
        embed_dim: int,
        d: int,
        heads: int,
        feedforward: int,
        patch: tuple[int, int],
        pre_norm: bool,
    ) -> None:
        super().__init__()
        self.reduces = nn.ModuleList([nn.Linear(width, d) for width in widths])
        self.film_mul, self.film_add = nn.Linear(embed_dim, d), nn.Linear(embed_dim, d)
        self.blocks = nn.ModuleList([Layer(d, heads, feedforward, pre_norm) for _ in widths])
        self.trans_conv = nn.ConvTranspose2d(d, 1, patch, stride=patch)

    def forward(self, activations: Sequence[Tensor], prompts: Tensor, grid: tuple[int, int]) -> Tensor:
        return self.decoded(self.reduced(activations), prompts, grid)

    def reduced(self, activations: Sequence[Tensor]) -> list[Tensor]:
        """[B, 1 + T, d] of each of the activations: all that does not depend on the prompt."""
        return [reduce(x) for reduce, x in zip(self.reduces, activations, strict=True)]

    def decoded(self, reduced: Sequence[Tensor], prompts: Tensor, grid: tuple[int, int]) -> Tensor:
        """Maps [B, S, S] of reduced activations; `grid` is (h, w)."""
        a = self.film_mul(prompts)[:, None] * reduced[0] + self.film_add(prompts)[:, None]
        a = self.blocks[0](a)
        for x, block in zip(reduced[1:], self.blocks[1:], strict=True):
            a = block(x + a)
        return self.trans_conv(a[:, 1:].mT.unflatten(2, grid))[:, 0]

    @torch.no_grad()
    def start_as_cosine(self, directions: Tensor) -> None:
        """Begin as 20 cos(place, prompt) - 5, in the first of these singular `directions` [n, e] of the places."""
        d, e = self.film_mul.weight.shape
        basis = torch.zeros_like(self.film_mul.weight)
        basis[: min(d, len(directions))] = directions[:d]
        for layer in (self.reduces[0], self.film_mul):
            layer.weight.copy_(basis)
            layer.bias.zero_()
        self.film_add.weight.zero_()
        self.film_add.bias.zero_()
        self.trans_conv.weight.fill_(20 / e)
        self.trans_conv.bias.fill_(-5)
        for reduce in self.reduces[1:]:
            reduce.weight.mul_(0.1)
            reduce.bias.zero_()
        for block in self.blocks:
            for layer in (block.self_attn.out_proj, block.linear2):
                layer.weight.zero_()
                layer.bias.zero_()


class Layer(nn.Module):
    """A transformer layer [B, T, d] -> [B, T, d] without dropout, with the parameters of `nn.TransformerEncoderLayer`.

    The norms stand behind the residual sums, or, with `pre_norm`, in front of the branches.
    """

    def __init__(self, d: int, heads: int, feedforward: int, pre_norm: bool) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.self_attn = nn.MultiheadAttention(d, heads)
        self.linear1, self.linear2 = nn.Linear(d, feedforward), nn.Linear(feedforward, d)
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)

    def forward(self, x: Tensor) -> Tensor:
        if self.pre_norm:
            x = x + self.attended(self.norm1(x))
            return x + self.linear2(F.relu(self.linear1(self.norm2(x))))
        x = self.norm1(x + self.attended(x))
        return self.norm2(x + self.linear2(F.relu(self.linear1(x))))

    def attended(self, x: Tensor) -> Tensor:
        """Attention among the tokens, with the weights of `self_attn`, whose own call reserves the right to draw."""
        own = self.self_attn
        q, k, v = F.linear(x, own.in_proj_weight, own.in_proj_bias).unflatten(-1, (3, own.num_heads, -1)).unbind(-3)
        weights = torch.einsum("bihd,bjhd->bhij", q, k) * q.shape[-1] ** -0.5
        return own.out_proj(torch.einsum("bhij,bjhd->bihd", weights.softmax(-1), v).flatten(-2))


def prompt_crops(images: Tensor, masks: Tensor, crop: str = "padded") -> Tensor:
    """What an image prompt shows of masks [m, S, S] (bool, none empty) of normalised images [m, 3, S, S]: [m, 3, S, S]."""
    side = images.shape[-1]
    size = min(15, 2 * ((side - 1) // 2) + 1)
    dark = DARK * gaussian_blur(images, [size, size], [BLUR, BLUR])
    cut = torch.where(masks[:, None], images, dark)
    boxes = mask_boxes(masks)
    image = torch.arange(len(images), device=images.device)
    if crop == "square":
        square = grown(boxes.to(images.dtype), 1 + 2 * CONTEXT, "square", float(side))
        rows = torch.cat([image[:, None].to(images.dtype), square], 1)
        return roi_align(cut, rows, side, 1.0, sampling_ratio=1, aligned=True)
    around = CONTEXT * (boxes[:, 2:] - boxes[:, :2]).double()
    low, high = (boxes[:, :2] - around).clamp_min(0).long(), (boxes[:, 2:] + around).clamp_max(side).long()
    length = (high - low).amax(1, keepdim=True)  # side of the square, zeros included
    steps = (torch.arange(side, device=images.device) * (length.float() / side)).floor().long()  # nearest: [m, S]
    zeros = (length - (high - low)) // 2
    columns, rows = (steps - zeros[:, k : k + 1] + low[:, k : k + 1] for k in (0, 1))
    inside_x, inside_y = ((at >= low[:, k : k + 1]) & (at < high[:, k : k + 1]) for k, at in enumerate((columns, rows)))
    y, x = rows.clamp(0, side - 1)[:, :, None], columns.clamp(0, side - 1)[:, None]
    crops = cut[image[:, None, None], :, y, x].movedim(-1, 1)  # [m, 3, S, S]
    return crops * (inside_y[:, None, :, None] & inside_x[:, None, None])


def read_blocks(text: str, depth: int) -> list[int]:
    """The blocks that `text` ("10, 8, 4") names in a tower of `OF_BLOCKS`, at the same share of the way in one of `depth`.

    Raises `VlmlabError` for what are no different blocks.
    """
    try:
        named = [int(part) for part in text.split(",")]
    except ValueError:
        named = [0]
    blocks = [max(1, round(j * depth / OF_BLOCKS)) for j in named]
    if not all(1 <= j <= OF_BLOCKS for j in named) or len(set(blocks)) < len(blocks):
        raise VlmlabError(f"after = '{text}' must name different blocks from 1 to {OF_BLOCKS}, with commas")
    return blocks


def _earlier(classes: Tensor) -> Tensor:
    """How many equal entries stand before each of `classes` [n]."""
    return (classes[:, None] == classes).long().tril(-1).sum(1)
