"""Segment, then name: what ZegFormer, ZSSeg, OpenSeg, OVSeg and FreeSeg have in common.

A MaskFormer proposes segments; whether it has a name for them is the system's own. Masks of seen classes teach it to cut,
and cutting carries over to classes without a mask. What differs from the releases in all of them: the network is small
and stands on frozen tokens of the same tower (`mask_former`), masks are supervised at half the image's size, and pixels of
classes without a granted mask count nothing in matching and losses (there, they lie outside of every mask). Norms and queries are
decayed like all that learns (there, they are not).

Dimensions: B images, N queries, K names in training, C classes, S image side, d query width.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.methods.dense.mask_former import MaskFormer, segments, set_loss
from vlmlab.methods.dense.pixels import Frozen, halved, thirds, tokens
from vlmlab.methods.dense.segmenter import Segmenter
from vlmlab.methods.method import Batch, Recipe, option


@dataclasses.dataclass
class Named:
    """Segments, and who calls them what.

    masks: logits [B, N, S, S]; segmenter: its probabilities [B, N, C + 1], "no object" last; clip: those of CLIP for the
    crops [B, N, C], None where it is not asked; both: what the system takes [B, N, C].
    """

    masks: Tensor
    segmenter: Tensor
    clip: Tensor | None
    both: Tensor


class Proposing(Segmenter):
    """What proposes segments, and how it is trained; a system gives `loss` and `logits`."""

    pooled = True  # whether segments are described by the frozen tokens under them, too (see `MaskFormer`)

    @dataclasses.dataclass
    class Config(Recipe):
        epochs: int = option(16, "epochs", 1, 10000)
        optimizer: str = option("adamw", "optimiser", choices=("sgd", "adamw"))
        lr: float = option(1e-4, "learning rate", 0.0, 10.0)
        weight_decay: float = option(1e-4, "weight decay", 0.0, 1.0)
        warmup_epochs: int = option(0, "first epochs, in which the rate rises", 0, 100)
        clip: float = option(0.01, "largest norm of all gradients together", 0.0, 1000.0)
        queries: int = option(100, "queries N", 1, 1000)
        layers: int = option(6, "decoder layers; each is taught", 1, 12)
        width: int = option(256, "width d of a query", 32, 2048)

    embedded: ClassVar[dict] = {
        "epochs": 7,
        "batch_size": 16,
        "lr": 2e-3,
        "weight_decay": 1e-3,
        "warmup_epochs": 1,
        "clip": 1.0,
        "queries": 17,
        "layers": 1,
        "width": 128,
    }

    def prepare(self, task) -> None:
        tower = self.backbone.image
        super().prepare(task)
        self.seen, self.unseen = list(task.base), list(task.new)
        self.pictures, self.after = task.train, thirds(tower.depth)
        self.frozen = Frozen(self, self.pictures, self.read)
        grid = tower.grid(self.backbone.image_size, self.backbone.image_size)
        config, token_width = self.config, len(self.after) * tower.width
        self.network = MaskFormer(token_width, grid, config.queries, config.layers, config.width, self.pooled)
        self.network.to(self.backbone.device)

    def learning_rate(self, step: int, steps: int) -> float:
        """A straight rise over the warm-up, then lr (1 - t / T)^0.9, step by step."""
        warm = self.config.warmup_epochs * self.batches
        if step < warm:
            return self.config.lr * (step + 1) / warm
        return self.config.lr * (1 - step / max(1, steps)) ** 0.9

    def before_step(self) -> None:
        nn.utils.clip_grad_norm_(self.parameters(), self.config.clip)

    def read(self, images: Tensor) -> Tensor:
        """Frozen tokens [B, L d', h, w] of images [B, 3, S, S]."""
        return tokens(self.backbone.image, images, self.after)

    def propose(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(mask logits [B, N, S, S], segments z [B, N, d]) of images [B, 3, S, S], from the last layer."""
        masks, z = self.network(images, self.read(images))[-1]
        return enlarged(masks, images), z


def enlarged(masks: Tensor, images: Tensor) -> Tensor:
    """Mask logits at the size of the images [B, 3, S, S]."""
    return F.interpolate(masks.float(), size=images.shape[-2:], mode="bilinear")


class MaskFirst(Proposing):
    """A system gives `names` of segments, and `logits`; matching and losses are MaskFormer's."""

    @dataclasses.dataclass
    class Config(Proposing.Config):
        null_weight: float = option(0.1, "weight of 'no object' in the cross-entropy", 0.0, 1.0)
        mask_weight: float = option(20.0, "weight of the focal loss of masks", 0.0, 1000.0)
        dice_weight: float = option(1.0, "weight of the dice loss of masks", 0.0, 1000.0)

    # --- what a system gives -----------------------------------------------------------------------------------------

    def names(self, z: Tensor, words: Tensor) -> Tensor:
        """Logits [B, N, K + 1] of segments z [B, N, d] among the unit words [K, e]; "no object" last."""
        raise NotImplementedError(f"{type(self).__name__}.names")

    def taught_words(self) -> Tensor:
        """Unit words [K, e] of the seen classes, which the segmenter is taught."""
        raise NotImplementedError(f"{type(self).__name__}.taught_words")

    def named(self, images: Tensor) -> Named:
        """What the segments of images [B, 3, S, S] are called, and by whom; for `logits`, and for who wants to look."""
        raise NotImplementedError(f"{type(self).__name__}.named")

    # --- training ----------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> Tensor:
        truths = [self.truth(semantic) for semantic in halved(batch.masks)]
        words, total = self.taught_words(), 0.0
        for masks, z in self.network(batch.images, self.frozen.of(batch)):
            total = total + set_loss(
                self.names(z, words).float(), masks.flatten(2).float(), truths,
                self.config.null_weight, self.config.mask_weight, self.config.dice_weight,
            )  # fmt: skip
        return total

    def truth(self, semantic: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`segments` of class indices [H, W], labels counted among the seen classes."""
        labels, masks, counted = segments(semantic)
        place = torch.full((max(self.seen) + 1,), -1, device=semantic.device)
        place[self.seen] = torch.arange(len(self.seen), device=semantic.device)
        return place[labels], masks, counted


class CosineNames(MaskFirst):
    """Segments named by cosines of two layers h with the words and with a learned vector b, as in ZSSeg and who builds on it.

    A system sets `words` [C, e] in `set_classes`; its Config has `scale`.
    """

    def cosine_head(self) -> None:
        """h and b, new."""
        width, embed = self.config.width, self.backbone.embed_dim
        self.embed = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, embed))  # h
        self.null = nn.Parameter(self.backbone.text.width**-0.5 * torch.randn(embed))  # b
        self.to(self.backbone.device)

    def taught_words(self) -> Tensor:
        return self.words_of_seen

    def names(self, z: Tensor, words: Tensor) -> Tensor:
        words = torch.cat([words, F.normalize(self.null, dim=0)[None]])
        return self.config.scale * F.normalize(self.embed(z), dim=-1) @ words.T

    @property
    def clip_words(self) -> Tensor:
        """The words that CLIP names segments with: here those of the segmenter."""
        return self.words

    def clip_names(self, images: Tensor, masks: Tensor, words: Tensor) -> Tensor:
        """q [B, N, C] of mask logits [B, N, S, S] and unit words [C, e]: softmax of CLIP's cosines, 1 for all classes where a
        mask is empty."""
        features, valid = self.encoded(images, masks > 0)
        q = (self.backbone.logit_scale * features @ words.T).softmax(-1)
        return torch.where(valid[..., None], q, 1.0)
