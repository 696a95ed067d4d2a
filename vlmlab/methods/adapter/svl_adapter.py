"""SVL-Adapter: Self-Supervised Adapter for Vision-Language Pretrained Models (arXiv:2210.03794, BMVC 2022).

Survey, section 6.3.2. Where images look like nothing that pretraining saw, an adapter behind the image encoder can only
rearrange what that encoder kept. SVL-Adapter brings a second encoder, which learns on the task's own images without their
labels. The few labels train a small classifier on its features, and its logits are mixed with those of zero-shot CLIP: words
where they are worth something, the new eyes where they are not.

    g = Enc(x), from SimCLR on all training images, no labels         see simclr.py                    (1)
    z = relu(g V1 + b1) V2 + b2,   loss = CE(z, y)                      CLIP takes no part in learning   (2)
    c = s f W^T,   logits = a z + (1 - a) c                             f, W as in zero-shot prediction  (3)
    a: the best of 0, 0.05 .. 1 on validation images;  or  a = 1 - mean_i max_c softmax(c_i)           (4)

The second rule of (4) needs no label (SVL-Adapter*): the surer CLIP is of itself, the more it is listened to. With
`labels=clip` none is used at all: CLIP's own predictions stand in for them, of each predicted class the 16 that it is surest
of, and for a class that it never predicts the one image that it finds most like it, which then stands for no other class; a
follows the second rule.

What differs from the release: the scale s is the backbone's, which is 100 in CLIP, where the release writes 100; float32;
SimCLR sees the training images (the release adds those of validation); the second rule reads the unlabelled training images
(the release those of the test, where it normalises f for ViT-L/14 alone and in the code without labels not at all); a class
that is never predicted keeps its number.
On the embedded backbones the encoder is a small one that begins at random (the release: a ResNet-50 that ImageNet's labels have
trained, so not wholly self-supervised). Both encoders see the square middle of an image (in the release, the second one sees all
of it); an incomplete last batch of an epoch is left out. SimCLR runs in `prepare`, before the first step that a checkpoint knows:
broken off there, it begins again. All images are in memory then, 0.6 MB each at 224 pixels.

Dimensions: B batch, C classes, S side that the backbone takes, D width of the encoder, h hidden width, e joint width, N images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.clock import Clock, charge
from vlmlab.errors import VlmlabError
from vlmlab.methods.adapter.simclr import ResNet50Encoder, SmallEncoder, pretrain
from vlmlab.methods.method import Batch, Method, option
from vlmlab.methods.templates import HELP, choose, spoken
from vlmlab.methods.text_prompt.upl import surest
from vlmlab.randomness import LocalRandom
from vlmlab.registry import register

ALPHAS = torch.arange(21) / 20
"""What the search of (4) tries."""

LEARNED: dict[tuple, tuple[nn.Module, tuple[float, float]]] = {}
"""Encoders that this process has trained, and the seconds that it took, by images and settings; the oldest goes when there
are MOST_LEARNED."""
MOST_LEARNED = 8


@register(
    "svl_adapter",
    title="SVL-Adapter: Self-Supervised Adapter for Vision-Language Pretrained Models",
    paper="arXiv:2210.03794",
    year=2022,
    section="6.3.2",
    family="adapter",
    setup="semi-supervised",
    learns="an encoder, from unlabelled images, and a classifier on it",
)
class SVLAdapter(Method):
    """Zero-shot logits mixed with those of an encoder that learned on the task's own images."""

    @dataclasses.dataclass
    class Config:
        encoder: str = option("resnet50", "the second encoder", choices=("resnet50", "small"))
        pretrained: bool = option(True, "whether resnet50 starts from ImageNet's labels (needs a network once)")
        side: int = option(112, "side in pixels of a view of SimCLR", 8, 1024)
        extract: int = option(224, "side in pixels at which features are taken", 8, 1024)
        ssl_epochs: int = option(200, "epochs of SimCLR on the unlabelled images", 0, 10000)
        ssl_batch: int = option(256, "images a step of SimCLR", 2, 4096)
        ssl_lr: float = option(0.03, "learning rate of SimCLR per 256 images", 0.0, 10.0)
        ssl_seed: int = option(2001, "seed of SimCLR, the same for all shots and support sets", 0, 2**31)
        hidden: int = option(256, "hidden width h of the classifier", 1, 4096)
        labels: str = option("given", "what the classifier learns", choices=("given", "clip"))
        top: int = option(16, "images of each class that CLIP labels", 1, 1024)
        rule: str = option("validation", "how a is set", choices=("validation", "confidence", "constant"))
        alpha: float = option(0.2, "a of the constant rule", 0.0, 1.0)
        epochs: int = option(50, "epochs of the classifier on its images", 1, 10000)
        batch_size: int = option(32, "training images a step", 1, 4096)
        lr: float = option(0.001, "learning rate of Adam, constant", 0.0, 10.0)
        templates: str = option("dataset", HELP)

    # SimCLR's epochs and rate were chosen among three pairs on validation images of digits and aerial.
    embedded: ClassVar[dict] = {
        "encoder": "small", "side": 32, "extract": 32, "ssl_epochs": 20, "ssl_batch": 128, "ssl_lr": 0.3,
    }  # fmt: skip
    eats = "images"

    def prepare(self, task) -> None:
        if not len(task.unlabelled):
            raise VlmlabError(
                "SVL-Adapter learns an encoder from training images, and there are none; choose a dataset"
            )
        self.learned_on: list[str] = list(task.classes)
        self.set_classes(task.classes, task.templates)
        self.encoder = [self._encoder(task.unlabelled)]  # in a list: it has learned already and is no parameter
        with LocalRandom(task.seed):
            layers = (
                nn.Linear(self.encoder[0].width, self.config.hidden),
                nn.Linear(self.config.hidden, len(task.classes)),
            )
        self.narrow, self.wide = (layer.to(self.backbone.device) for layer in layers)  # V1, b1, V2, b2
        self.register_buffer("alpha", torch.tensor(self.config.alpha))  # a, to be saved with what was learned

    @property
    def trainable_parameters(self) -> int:
        """With those of the encoder, which learned before the classifier and without labels."""
        return super().trainable_parameters + sum(p.numel() for p in self.encoder[0].parameters())

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        """Raises `VlmlabError` for other classes than those of the classifier."""
        self.refuse_other_classes(
            classes, "the classifier of SVL-Adapter belongs to its classes; prepare it on the others"
        )
        super().set_classes(classes, templates)
        sentences = choose(self.config.templates, templates)
        self.classifier = self.backbone.class_embeddings(spoken(classes), sentences)  # W [C, e]

    def learns_from(self, task):
        """The support, or the images that CLIP labels; what both encoders make of them is kept."""
        pictures = task.support if self.config.labels == "given" else self._labelled_by_clip(task.unlabelled)
        self.kept = self.encoded(pictures)[0] if len(pictures) else None  # g [N, D]
        return pictures

    def logits(self, batch: Batch) -> Tensor:
        g, c = self.both(batch.images)
        return self.alpha * self.adapted(g) + (1 - self.alpha) * c  # [B, C] (3)

    def loss(self, batch: Batch) -> Tensor:
        g = self.kept[batch.index] if batch.whole else self.both(batch.images)[0]
        return F.cross_entropy(self.adapted(g), batch.labels)  # (2)

    def adapted(self, g: Tensor) -> Tensor:
        """z [B, C] of (2) for features g [B, D]."""
        return self.wide(F.relu(self.narrow(g)))

    @torch.no_grad()
    def both(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """g [B, D] and c [B, C] of images [B, 3, S, S] as the backbone takes them."""
        f = F.normalize(self.backbone.encode_image(images), dim=-1)
        g = self.encoder[0](resized(self.pixels(images), self.config.extract))
        return g, self.backbone.logit_scale * f @ self.classifier.T

    def pixels(self, images: Tensor) -> Tensor:
        """The backbone's normalisation undone: values from 0 to 1."""
        mean, std = (v.to(images).view(3, 1, 1) for v in (self.backbone.mean, self.backbone.std))
        return (images * std + mean).clamp(0, 1)

    def encoded(self, pictures) -> tuple[Tensor, Tensor]:
        """g [N, D] and c [N, C] of an ImageSet."""
        parts = [self.both(images) for images in self.in_turn(pictures)]
        g, c = (torch.cat(part) for part in zip(*parts, strict=True))
        return g, c

    def optimizer(self, steps: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """Adam at a constant rate."""
        optimizer = torch.optim.Adam(self.parameters(), self.config.lr)
        return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)

    def finish(self, task) -> None:
        """a of (4), by the rule of the configuration; by confidence if there are no validation images, or no given labels."""
        rule = self.config.rule
        if rule == "validation" and (self.config.labels == "clip" or not len(task.val)):
            rule = "confidence"
        if rule == "confidence":
            self.alpha = 1 - self.encoded(task.unlabelled)[1].softmax(-1).amax(-1).mean().cpu()
        elif rule == "validation":
            g, c = self.encoded(task.val)
            self.alpha = self._search(g, c, task.val.labels.to(c.device))

    @torch.no_grad()
    def _search(self, g: Tensor, c: Tensor, labels: Tensor) -> Tensor:
        """The first of ALPHAS with the best accuracy."""
        z = self.adapted(g)
        right = [((a * z + (1 - a) * c).argmax(-1) == labels).float().mean() for a in ALPHAS.tolist()]
        return ALPHAS[int(torch.stack(right).argmax())]

    def _labelled_by_clip(self, pictures):
        p = self.encoded(pictures)[1].softmax(-1)  # [N, C]
        confidence, label = p.max(-1)
        chosen = surest(confidence, label, len(self.classes), self.config.top)
        never = sorted(set(range(len(self.classes))) - set(label.tolist()))[: len(p)]
        lent: list[int] = []  # the images of the classes that are never predicted, a different one for each
        for c in never:
            likeness = p[:, c].index_fill(0, torch.tensor(lent, dtype=torch.long, device=p.device), -1.0)
            lent.append(int(likeness.argmax()))
        chosen = chosen[~torch.isin(chosen, torch.tensor(lent))]
        labels = torch.cat([label.cpu()[chosen], torch.tensor(never, dtype=torch.long)])
        return pictures.subset(torch.cat([chosen, torch.tensor(lent, dtype=torch.long)])).relabelled(labels)

    def _encoder(self, pictures) -> nn.Module:
        """The encoder of (1). Shots, support sets and the classifier do not matter to it: one serves all of them.

        It takes the same time on the `Clock` whether it is trained now or was before.
        """
        config, frozen = self.config, self.backbone
        settings = (config.encoder, config.pretrained, config.side, config.ssl_epochs, config.ssl_batch, config.ssl_lr)
        key = (pictures.fingerprint(), frozen.fingerprint(), str(frozen.device), *settings, config.ssl_seed)
        if key not in LEARNED:
            with Clock() as clock:
                with LocalRandom(config.ssl_seed):
                    encoder = SmallEncoder() if config.encoder == "small" else ResNet50Encoder(config.pretrained)
                encoder = encoder.to(frozen.device).eval().requires_grad_(True)
                if config.ssl_epochs:
                    # Twice the side of a view is as fine as a part of an image ever needs.
                    most = min(frozen.image_size, 2 * config.side)
                    pixels = torch.cat([resized(self.pixels(images), most) for images in self.in_turn(pictures)])
                    batch, lr = config.ssl_batch, config.ssl_lr
                    pretrain(encoder, pixels, config.side, config.ssl_epochs, batch, lr, seed=config.ssl_seed)
            while len(LEARNED) >= MOST_LEARNED:
                LEARNED.pop(next(iter(LEARNED)), None)
            LEARNED[key] = encoder.eval().requires_grad_(False), clock.read()
            return LEARNED[key][0]
        encoder, cost = LEARNED[key]
        charge(*cost)
        return encoder


def resized(pixels: Tensor, side: int) -> Tensor:
    """Images [B, 3, H, W] at `side` by `side`."""
    if pixels.shape[-2:] == (side, side):
        return pixels
    return F.interpolate(pixels, size=(side, side), mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)
