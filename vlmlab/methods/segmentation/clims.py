"""CLIMS: Cross Language Image Matching for Weakly Supervised Semantic Segmentation (arXiv:2203.02668, CVPR 2022).

Survey, section 7.2.2. A class activation map (CAM) shows what tells a network that an image has a boat, and water does: a
classifier learns from image labels alone, and what always comes together is one to it. CLIP knows better, for it has met boats
elsewhere. CLIMS takes the CAM network as it is, cuts out of the image what its map lights, and lets CLIP judge: what is cut out
should look like the name of the class, what is left should not, and neither should what is cut out look like a ground.

    CAM:    mean over places of Z_c = classifier(net(image)), learned by the multi-label soft-margin loss        (1)
    map:    P_c = sigmoid(Z_c), enlarged to the image, for every class c that the image shows
    o = cos(f(P_c X), t_c)    b = cos(f((1 - P_c) X), t_c)    g_k = cos(f(P_c X), t_k), t_k the words of grounds
    L = h0 mean(-log o) + h1 mean(-log(1 - b)) + h2 sum over g_k > 0.26 of -log(1 - g_k) + h3 mean(P)            (2)
    M_c = ReLU(Z_c) / (its maximum + 1e-5)                                                                       (3)

The means of o and b are over pairs of an image and a class that it shows, the last is over the maps of all classes; o and b are
clamped to 1e-4 ... 0.9999. X is normalised, so what is cut out of it gets the mean colour. f is the frozen image tower,
through which the gradient goes to the map. Then a segmenter learns from the maps as pseudo labels (`dense.cam_student`).

What differs from the release: CLIP judges pixels normalised as CLIP's, where the release hands it those of ImageNet; (3) is at
the maps' own size, a quarter, and enlarged afterwards, where the release enlarges first; the CAM network is the pixel encoder
of `dense.pixels` on frozen tokens, with a linear path, where the release has a ResNet-50 of ImageNet; maps are made at one
scale, without mirrored images; its random walk (IRNet) between the maps and the segmenter is missing, and the segmenter is
that of CLIP-ES here. "player" for "person" is a word to type. The release hands its weight decay to SGD as the momentum, and
so does the default. The embedded settings judge some pairs per step, drawn at random, and weigh the area more: an image shows
three of 47 classes, whose maps alone can be large.

Dimensions: B images, C classes, e joint width, n pairs, K words of grounds, h x w = a quarter of the image's side S.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.errors import VlmlabError
from vlmlab.methods.dense.cam_student import CamStudent
from vlmlab.methods.dense.pixels import TokenNet
from vlmlab.methods.method import Batch, Recipe, option
from vlmlab.methods.templates import HELP, choose, spoken
from vlmlab.registry import register

# The release's words for what comes together with the things of PASCAL VOC.
BACKGROUND = "tree, river, sea, lake, water, railway, railroad, track, stone, rocks"
LEAST, MOST = 1e-4, 0.9999
POWER = 0.9
CAM, JUDGED, TAUGHT = 0, 1, 2  # the stages


@register(
    "clims",
    title="CLIMS: Cross Language Image Matching for Weakly Supervised Semantic Segmentation",
    paper="arXiv:2203.02668",
    year=2022,
    section="7.2.2",
    family="segmentation",
    setup="weakly supervised",
    tasks=("segmentation",),
    learns="a CAM network, then a student",
    needs=("image blocks",),
)
class CLIMS(CamStudent):
    """A CAM network that CLIP judges; a student learns from its maps."""

    @dataclasses.dataclass
    class Config(Recipe):
        cam_epochs: int = option(5, "epochs of the CAM network before CLIP judges", 1, 10000)
        epochs: int = option(15, "epochs in which CLIP judges", 1, 10000)
        student_epochs: int = option(19, "epochs of the student", 1, 10000)
        batch_size: int = option(16, "training images a step", 1, 4096)
        cam_lr: float = option(0.1, "learning rate of the CAM network at the start", 0.0, 10.0)
        lr: float = option(2.5e-4, "learning rate at the start when CLIP judges", 0.0, 10.0)
        student_lr: float = option(2.5e-4, "learning rate of the student at the start", 0.0, 10.0)
        head: float = option(10.0, "factor of these rates for classifiers", 0.0, 1000.0)
        momentum: float = option(1e-4, "momentum of SGD", 0.0, 1.0)
        weight_decay: float = option(1e-4, "weight decay", 0.0, 1.0)
        object_weight: float = option(10.0, "h0: what is cut out looks like its name", 0.0, 1000.0)
        rest_weight: float = option(24.0, "h1: what is left does not", 0.0, 1000.0)
        ground_weight: float = option(1.0, "h2: what is cut out does not look like a ground", 0.0, 1000.0)
        area_weight: float = option(0.2, "h3: maps are small", 0.0, 1000.0)
        ground_threshold: float = option(0.26, "cosine from which it looks like a ground", -1.0, 1.0)
        ground_words: str = option(BACKGROUND, "words of grounds, with commas; those that are things are left out")
        pairs: int = option(0, "pairs of an image and a class that are judged in a step; 0: all", 0, 100000)
        threshold: float | None = option(
            None, "score up to which a pixel is ground; none: chosen on validation images", 0.0, 1.0
        )
        scale: float = option(20.0, "factor of the student's cosines", 0.0, 1000.0)
        judge_templates: str = option("a photo of {}.", f"of the judge; {HELP}")
        templates: str = option("scene85", f"of the student; {HELP}")

    embedded: ClassVar[dict] = {
        "cam_epochs": 4,
        "epochs": 2,
        "student_epochs": 3,
        "optimizer": "adamw",
        "cam_lr": 3e-3,
        "lr": 5e-4,
        "student_lr": 3e-3,
        "head": 4.0,
        "weight_decay": 1e-3,
        "area_weight": 16.0,
        "ground_words": "grass, sky, water, sand, snow, brick, wood",
        "pairs": 12,
        "judge_templates": "dataset",
        "templates": "dataset",
    }

    fixed_threshold = 0.15

    def prepare(self, task) -> None:
        super().prepare(task)
        self.grounds = list(task.grounds)
        self.things = [c for c in range(len(self.classes)) if c not in set(self.grounds)]
        sentences = choose(self.config.judge_templates, self.templates)
        names, words = spoken(self.classes), self.background_words(self.config.ground_words)
        if not words and self.config.ground_weight:
            raise VlmlabError("no word of a ground is left that is not a class; name some in ground_words")
        self.words = self.backbone.class_embeddings([names[c] for c in self.things], sentences)
        self.ground = self.backbone.class_embeddings(words, sentences) if words else self.words[:0]
        self.prepare_student()
        self.net = CamNet(len(self.after) * self.backbone.image.width, len(self.things)).to(self.backbone.device)
        # The CAM network as it was before CLIP judged it.
        self.register_buffer("first", nn.utils.parameters_to_vector(self.net.parameters()).detach().clone())
        self.train_images, self.val_images = task.train, task.val
        self.keep_tokens(task.train)
        self.pseudo = None

    # --- stages ------------------------------------------------------------------------------------------------------

    def stages(self, task) -> list:
        return [task.train] * 3

    @property
    def planned_epochs(self) -> int:
        return (self.config.cam_epochs, self.config.epochs, self.config.student_epochs)[self.stage]

    def optimizer(self, steps: int):
        """The classifiers learn faster by `head`; rates fall as a power of the steps that are left."""
        config = self.config
        rate = (config.cam_lr, config.lr, config.student_lr)[self.stage]
        learner = self.student if self.stage == TAUGHT else self.net
        heads = [
            p
            for name, p in learner.named_parameters()
            if name.split(".")[0] in ("classifier", "direct", "head", "mixed")
        ]
        others = [p for p in learner.parameters() if all(p is not head for head in heads)]
        if self.stage == JUDGED:
            self.first.copy_(nn.utils.parameters_to_vector(self.net.parameters()).detach())
        self.pseudo = None
        groups = [{"params": others, "lr": rate}, {"params": heads, "lr": rate * config.head}]
        if config.optimizer == "sgd":
            chosen = torch.optim.SGD(groups, rate, momentum=config.momentum, weight_decay=config.weight_decay)
        else:
            chosen = torch.optim.AdamW(groups, rate, weight_decay=config.weight_decay, eps=config.eps)
        falling = torch.optim.lr_scheduler.LambdaLR(chosen, lambda step: max(0.0, 1 - step / steps) ** POWER)
        return chosen, falling

    def loss(self, batch: Batch) -> Tensor:
        """(1), then (2), then that of the student."""
        if self.stage == TAUGHT:
            if self.pseudo is None:
                self.threshold = self.chosen_threshold(self.val_images)
                self.learn_labels(self.train_images)
            return self.student_loss(batch)
        maps = self.net(batch.images, self.tokens[batch.index.to(self.tokens.device)])
        shown = batch.labels[:, self.things] > 0
        if self.stage == CAM:
            return F.multilabel_soft_margin_loss(maps.mean((2, 3)), shown.float())
        return self.judged(batch.images, maps.sigmoid(), shown)

    # --- the judge ---------------------------------------------------------------------------------------------------

    def judged(self, images: Tensor, maps: Tensor, shown: Tensor) -> Tensor:
        """(2) of images [B, 3, S, S], maps [B, things, h, w] of 0 to 1, and which things each image shows [B, things]."""
        config, area = self.config, maps.mean()
        pairs = shown.nonzero()
        if config.pairs and len(pairs) > config.pairs:
            pairs = pairs[torch.randperm(len(pairs))[: config.pairs].to(pairs.device).sort().values]
        if not len(pairs):
            return config.area_weight * area
        own = maps[pairs[:, 0], pairs[:, 1]][:, None]
        own = F.interpolate(own, images.shape[-2:], mode="bilinear", align_corners=True)
        seen, words = images[pairs[:, 0]], self.words[pairs[:, 1]]
        cut, rest = F.normalize(self.backbone.encode_image(torch.cat([own * seen, (1 - own) * seen])), dim=-1).chunk(2)
        return (
            config.object_weight * object_loss((cut * words).sum(1))
            + config.rest_weight * rest_loss((rest * words).sum(1))
            + config.ground_weight * ground_loss(cut @ self.ground.T, config.ground_threshold)
            + config.area_weight * area
        )

    # --- maps --------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def label_maps(self, images: Tensor, shown: Tensor, refined: bool = True) -> tuple[Tensor, Tensor]:
        """(pairs, maps) as in `CamStudent`: (3) of the judged network, or of the CAM network that it started from."""
        pairs = shown[:, self.things].nonzero()
        places = self.read(images)
        if refined:
            maps = self.net(images, places)
        else:
            names = [name for name, _ in self.net.named_parameters()]
            shapes = [p.shape for p in self.net.parameters()]
            parts = self.first.split([shape.numel() for shape in shapes])
            then = {name: part.view(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
            maps = torch.func.functional_call(self.net, then, (images, places))
        own = F.relu(maps[pairs[:, 0], pairs[:, 1]].float())
        own = own / (own.amax((1, 2), keepdim=True) + 1e-5)
        return torch.stack([pairs[:, 0], torch.tensor(self.things, device=pairs.device)[pairs[:, 1]]], 1), own


class CamNet(nn.Module):
    """Images [B, 3, S, S] and frozen tokens [B, D, h', w'] -> Z, a logit per class and place [B, C, S/4, S/4]."""

    def __init__(self, token_width: int, classes: int, width: int = 48) -> None:
        super().__init__()
        self.net = TokenNet(token_width, width)
        self.classifier = nn.Conv2d(width, classes, 1, bias=False)
        self.direct = nn.Conv2d(token_width, classes, 1, bias=False)
        self.mixed = nn.Conv2d(128, classes, 1, bias=False)

    def forward(self, images: Tensor, places: Tensor) -> Tensor:
        pixels, mixed = self.net(images, places)
        maps = self.classifier(F.avg_pool2d(pixels, 2))
        linear = self.direct(places.float()) + self.mixed(mixed)
        return maps + F.interpolate(linear, size=maps.shape[-2:], mode="bilinear")


def object_loss(cosines: Tensor) -> Tensor:
    """Mean of -log of cosines [n], clamped."""
    return -cosines.clamp(LEAST, MOST).log().mean()


def rest_loss(cosines: Tensor) -> Tensor:
    """Mean of -log(1 - cosine) [n], clamped."""
    return -(1 - cosines.clamp(LEAST, MOST)).log().mean()


def ground_loss(cosines: Tensor, threshold: float = 0.26) -> Tensor:
    """Sum of -log(1 - cosine) over those of [n, K] that exceed the threshold, not clamped."""
    return -(1 - cosines).log()[cosines > threshold].sum()
