"""CLIP-ES: CLIP Is Also an Efficient Segmenter (arXiv:2212.09506, CVPR 2023).

Survey, section 7.2.2. It is known which things an image shows, and not where. Grad-CAM asks CLIP: which places make the image
look like the class? Two things are wrong with the answer, and CLIP-ES mends both without training. The gradient of a
similarity does not care which other class a place also speaks for; that of a *probability* among the classes of the image
and a list of background words does, because they exclude one another. And a map lights the telling parts of a thing alone;
the tower's own attention knows which places belong together, and spreads the map, inside of boxes around it.

    f = n(P(X)), X the last block's tokens, P pooling and projection
    p = softmax(s f [T_present ; T_background]^T)                                                (1)
    g = dp_c / dA, A [d, h, w] the places after the first norm of the last block
    M_c = minmax(ReLU(sum over channels of mean(g) A))                                           (2)
    W = affinity(mean of the attention of the last blocks, over heads)      `dense.cam`          (3)
    M_c <- minmax((W * box_c) M_c), box_c around what exceeds 0.4 of the maximum                 (4)
    y(x) = argmax_c M_c(x), or ground where no map exceeds t                                     (5)
    L = mean over pixels of CE(student(x), y(x))                                                 (6)

The maps are pseudo labels of the training images, and an ordinary segmentation network learns from them (6); it is what
predicts, for nobody tells the classes of a test image.

What differs from the release. It takes images at their own size, rounded up to whole patches, with bilinear positions; here
they are letterboxed to the tower's size. Its own names for the classes of PASCAL VOC ("person with clothes, people, human")
are words to type. Its dense CRF, and with it the confidence below which a pixel is left out of (6), are missing: every pixel
counts. Instead of the CRF's background score 1 - max_c M_c there is the threshold t, chosen on validation images with masks
(0.5, which is the same as that score, where there are none). The student is the pixel encoder of `dense.pixels` with the class
sentences for a classifier, where the release trains DeepLabv2 with code of others, whose settings it does not state: epochs
and rates are those of MaskCLIP+ here. Ground is not one class: it gets the stuff that the image's labels name (sky, grass,
...), and counts nothing if they name none, or several.

Dimensions: B images, C classes, b background words, n pairs of an image and a class that it shows, h x w places, T = h w,
d the tower's width, S image side.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmlab.backbones.blocks import attention_map, finish, project, run_block
from vlmlab.errors import VlmlabError
from vlmlab.methods.dense import cam
from vlmlab.methods.dense.cam_student import CamStudent
from vlmlab.methods.method import Batch, Recipe, option, rate_by_step
from vlmlab.methods.templates import HELP, choose, spoken
from vlmlab.registry import register

# The release's words for what is no thing of PASCAL VOC.
BACKGROUND = (
    "ground, land, grass, tree, building, wall, sky, lake, water, river, sea, railway, railroad, keyboard, helmet, cloud, "
    "house, mountain, ocean, road, rock, street, valley, bridge, sign"
)


@register(
    "clip_es",
    title="CLIP-ES: CLIP Is Also an Efficient Segmenter",
    paper="arXiv:2212.09506",
    year=2023,
    section="7.2.2",
    family="segmentation",
    setup="weakly supervised",
    tasks=("segmentation",),
    learns="a student network",
    needs=("image blocks",),
)
class CLIPES(CamStudent):
    """Grad-CAM with a softmax, spread by attention: pseudo labels for a student."""

    @dataclasses.dataclass
    class Config(Recipe):
        epochs: int = option(56, "epochs of the student", 1, 10000)
        batch_size: int = option(16, "training images a step", 1, 4096)
        lr: float = option(0.01, "learning rate", 0.0, 10.0)
        warmup_epochs: int = option(0, "first epochs, in which the rate rises", 0, 100)
        target: str = option(
            "background",
            "what the gradient is of: background: the softmax over present classes and background words; present: over "
            "present classes alone; logit: no softmax",
            choices=("background", "present", "logit"),
        )
        background_words: str = option(BACKGROUND, "background words, with commas; those that are things are left out")
        pooling: str = option(
            "places", "image feature: mean of the places, or the class token", choices=("places", "class")
        )
        layers: int = option(8, "last blocks whose attention spreads the maps; 0: the maps as they are", 0, 100)
        box: float = option(0.4, "share of a map's maximum from which a place is in its boxes", 0.0, 1.0)
        threshold: float | None = option(
            None, "score up to which a pixel is ground; none: chosen on validation images", 0.0, 1.0
        )
        scale: float = option(20.0, "factor of the student's cosines", 0.0, 1000.0)
        cam_templates: str = option("a clean origami {}.", f"of the maps; {HELP}")
        templates: str = option("scene85", f"of the student; {HELP}")

    # The class token is what the embedded towers were trained with; the words are the stuff of their world and what is near.
    embedded: ClassVar[dict] = {
        "epochs": 6,
        "optimizer": "adamw",
        "lr": 3e-3,
        "weight_decay": 1e-3,
        "warmup_epochs": 1,
        "background_words": "grass, sky, water, sand, snow, brick, wood, wall, floor, ground, sea, field, desert, road",
        "pooling": "class",
        "cam_templates": "a photo of a {}.",
        "templates": "dataset",
    }

    def prepare(self, task) -> None:
        super().prepare(task)
        self.grounds = list(task.grounds)
        self.set_map_words()
        self.prepare_student()
        self.threshold = self.chosen_threshold(task.val)
        self.learn_labels(task.train)
        self.keep_tokens(task.train)

    def set_map_words(self) -> None:
        """The sentences of the maps: T [C, e] of all classes, and [b, e] of the background words."""
        sentences, names = choose(self.config.cam_templates, self.templates), spoken(self.classes)
        words = self.background_words(self.config.background_words)
        if not words and self.config.target == "background":
            raise VlmlabError("no background word is left that is not a class; name some in background_words")
        self.words = self.backbone.class_embeddings(names, sentences)
        self.background = self.backbone.class_embeddings(words, sentences) if words else self.words[:0]

    # --- from names to maps ------------------------------------------------------------------------------------------

    @torch.enable_grad()
    def maps_of(self, images: Tensor, shown: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(pairs [n, 2] of an image and a thing that it shows, their maps [n, h, w] (2), and those spread (4)).

        images [B, 3, S, S] normalised, shown [B, C] true for the classes of each; stuff gets no map.
        """
        shown = shown.clone()
        shown[:, self.grounds] = False
        pairs = shown.nonzero()
        image, visual = self.backbone.image, self.backbone.image.visual
        with torch.no_grad():
            x, attention = self.attended(images)
            attention = attention.float()
        *_, last = visual.transformer.resblocks
        grid = image.grid(*images.shape[-2:])
        own = x[pairs[:, 0]]  # every pair runs the last block by itself
        places = last.ln_1(own).detach().requires_grad_()  # A
        out = visual.ln_post(finish(last, own, F.scaled_dot_product_attention(*project(last, places, "qkv"))))
        pooled = out[:, 1:].mean(1) if self.config.pooling == "places" else out[:, 0]
        feature = F.normalize(pooled @ visual.proj, dim=-1).float()
        scores = self.target(feature, shown[pairs[:, 0]])  # [n, C]
        chosen = scores.gather(1, pairs[:, 1:]).sum()
        (gradients,) = torch.autograd.grad(chosen, places)
        with torch.no_grad():
            a, g = (t[:, 1:].float().mT.unflatten(2, grid) for t in (places, gradients))
            maps = cam.grad_cam(a, g)
            return pairs, maps, self.spread(maps, attention, pairs)

    def target(self, feature: Tensor, shown: Tensor) -> Tensor:
        """[n, C], what the gradient is taken of: the probabilities (1) of the features [n, e] of images that show `shown`."""
        scale = self.backbone.logit_scale.detach().float()
        logits = scale * feature @ self.words.float().T
        if self.config.target == "logit":
            return logits
        logits = logits.masked_fill(~shown, -torch.inf)
        if self.config.target == "background":
            logits = torch.cat([logits, scale * feature @ self.background.float().T], 1)
        return logits.softmax(1)[:, : shown.shape[1]]

    def attended(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(what goes into the last block [B, 1 + T, d], the mean attention of places to places [B, T, T] over the last `layers`).

        A tower of fewer blocks gives all that it has. Positions of images of another size than the tower's are bilinear.
        """
        image = self.backbone.image
        blocks = image.visual.transformer.resblocks
        x = image.visual.ln_pre(image.placed(image.patches(images), image.grid(*images.shape[-2:]), "bilinear"))
        first = max(0, len(blocks) - self.config.layers)
        total = x.new_zeros(())
        before = x
        for j, block in enumerate(blocks):
            before = x
            if j < first:
                x = run_block(block, x)
            else:
                weights, x = attention_map(block, x)
                total = total + weights.mean(1)[:, 1:, 1:]
        return before, total / max(1, len(blocks) - first)

    def spread(self, maps: Tensor, attention: Tensor, pairs: Tensor) -> Tensor:
        """The maps [n, h, w] spread by the affinity of their image's places (3), (4); attention [B, T, T]."""
        if not self.config.layers:
            return maps
        affinity = cam.affinity(attention)
        inside = torch.stack([cam.inside_boxes(one, self.config.box) for one in maps]) if len(maps) else maps
        mixed = torch.einsum("nij,nj->ni", affinity[pairs[:, 0]], (inside * maps).flatten(1))
        return cam.unit_range(mixed.view_as(maps))

    # --- the student -------------------------------------------------------------------------------------------------

    def label_maps(self, images: Tensor, shown: Tensor, refined: bool = True) -> tuple[Tensor, Tensor]:
        """(pairs, maps) of `maps_of`: those that are spread (4), or those of Grad-CAM (2)."""
        pairs, plain, wide = self.maps_of(images, shown)
        return pairs, wide if refined else plain

    def learning_rate(self, step: int, steps: int) -> float:
        return rate_by_step(step, steps, self.config.lr, self.config.warmup_epochs * self.batches)

    def loss(self, batch: Batch) -> Tensor:
        """(6), over the pixels whose label is known."""
        return self.student_loss(batch)
