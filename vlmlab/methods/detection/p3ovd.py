"""P3OVD: CLIP is adapted to dense prediction by prompts before it makes pseudo labels. A reconstruction.

Long et al., "P3OVD: Fine-grained Visual-Text Prompt-Driven Self-Training for Open-Vocabulary Object Detection", arXiv
2211.00849. There is no public code. The abstract gives the order (pretrain, adapt, pseudo-label), text prompts learned on a
dense task, and a visual prompt module that tells the visual branch which categories are sought. All formulas, coefficients and
settings below are ours, as is the choice of the pseudo-labelling of VL-PLM for the last step: what is measured here says nothing
of the paper's numbers.

    F  = CLIP's local features, unit                                       [T, e]   T places
    t_c = n(E_T([V_1 ... V_M, name_c .]))                                           text prompts
    F' = n( F + softmax(F W_q T^t s) T W_o ),  T = t of the names that are sought   visual prompt; W_q = 1, W_o = 0 at first
    adapt:  mean over places in base boxes of CE( s F' T_base^t, class of the box )  the smallest box counts        (1)
    label:  f_r = n(mean of F' under r), q_r = softmax over new names of s f_r . t_c; score and choice as in VL-PLM  (2)
    learn:  the head of `dense.student` on base boxes and pseudo boxes, weighed by their scores                     (3)

Base names are sought in (1) and new ones in (2). `adapt_epochs` = 0 leaves the adaptation out: the templates' words, F' = F.

Dimensions: N images, B of them at once, T = h w places, P proposals, M vectors of a context, d width of the text tower,
C classes, e joint width.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from vlmlab.methods.dense.pseudo_labels import PseudoLabels, chosen
from vlmlab.methods.dense.region_learner import EMBEDDED
from vlmlab.methods.dense.student import Student, StudentRecipe
from vlmlab.methods.method import Batch, option, rate_by_step
from vlmlab.methods.text_prompt.prompts import assemble, placeholders, random_vectors
from vlmlab.registry import register

GRID = 3  # places a side under a box that are averaged in (2)


@register(
    "p3ovd",
    title="P3OVD: Fine-grained Visual-Text Prompt-Driven Self-Training for Open-Vocabulary Object Detection",
    paper="arXiv:2211.00849",
    year=2022,
    section="7.1.3",
    family="detection",
    setup="open-vocabulary",
    learns="text and visual prompts, a head on regions",
    tasks=("detection",),
    needs=("text tokens", "local features"),
)
class P3OVD(Student):
    """Adapt by prompts, label new classes, learn from the labels."""

    @dataclasses.dataclass
    class Config(StudentRecipe):
        n_ctx: int = option(8, "context vectors M", 1, 64)
        zoom: float = option(2.0, "how much larger images are when their places are read", 0.5, 8.0)
        adapt_epochs: int = option(6, "epochs of the prompts; 0: no adaptation", 0, 10000)
        adapt_lr: float = option(2e-3, "learning rate of the prompts", 0.0, 10.0)
        objectness: float = option(0.5, "share of objectness in the score of a pseudo label", 0.0, 1.0)
        threshold: float = option(0.8, "score that a pseudo label must exceed", 0.0, 1.0)
        doubles: float = option(0.6, "intersection over union of two pseudo boxes that are one", 0.0, 1.0)
        off_base: float = option(0.5, "intersection over union with a base box from which a label is dropped", 0.0, 1.0)
        epochs: int = option(24, "epochs of the head", 1, 10000)
        batch_size: int = option(16, "images a step", 1, 4096)
        lr: float = option(0.02, "learning rate of the head", 0.0, 10.0)
        weight_decay: float = option(1e-4, "weight decay", 0.0, 1.0)

    embedded: typing.ClassVar[dict] = EMBEDDED | {"n_ctx": 4, "adapt_epochs": 3, "adapt_lr": 5e-3}

    def prepare(self, task) -> None:
        super().prepare(task)
        images, device = self.learns_from(task), self.backbone.device
        self.places = self.places_of(images)  # [N, e, h, w]
        self.place_labels = self.labels_of_places()  # [N, h, w] among base classes, -1 where nothing is known
        if self.adapts:
            noise = torch.Generator().manual_seed(task.seed)
            start = random_vectors(self.config.n_ctx, self.backbone.text.width, generator=noise)
            self.context = nn.Parameter(start.to(device))
            self.visual = VisualPrompt(self.text.shape[1]).to(device)
            self.base_prompts = self.prompts_of(self.base_names)
            self.new_prompts = self.prompts_of([task.classes[c] for c in self.new]) if self.new else None
        self.pseudo: PseudoLabels | None = None

    @classmethod
    def needs(cls, config) -> tuple[str, ...]:
        return ("text tokens", "local features") if config.adapt_epochs else ("local features",)

    @property
    def distils(self) -> bool:
        return False

    @property
    def adapts(self) -> bool:
        """Whether there are prompts to learn."""
        return self.config.adapt_epochs > 0

    def prompts_of(self, names: Sequence[str]):
        return assemble(self.backbone.text, names, placeholders(self.config.n_ctx))

    def places_of(self, images) -> Tensor:
        """F of all images of a set, [N, e, h, w], from the disk if they are there."""
        side = round(self.config.zoom * self.backbone.image_size)

        def compute(positions: range) -> dict[str, Tensor]:
            pixels, _ = self.framed([images.images(i) for i in positions])
            pixels = F.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
            with torch.no_grad():
                return {"places": F.normalize(self.backbone.image.local_features(pixels), dim=1)}

        return self.learned.stored(images, f"places {side}", compute)["places"]

    def labels_of_places(self) -> Tensor:
        """The base class of the smallest granted box over the centre of every place [N, h, w]; -1 where there is none."""
        known, (height, width) = self.granted, self.places.shape[-2:]
        device, side = known.boxes.device, self.backbone.image_size
        y, x = ((torch.arange(n, device=device) + 0.5) * side / n for n in (height, width))
        x0, y0, x1, y1 = known.boxes[..., None, None].unbind(2)  # [N, Q, 1, 1]
        inside = (x >= x0) & (x < x1) & (y[:, None] >= y0) & (y[:, None] < y1) & known.there[..., None, None]
        area = (known.boxes[..., 2:] - known.boxes[..., :2]).prod(-1)[..., None, None]
        place = torch.full((len(self.classes),), -1, device=device)
        place[self.base] = torch.arange(len(self.base), device=device)
        if not known.boxes.shape[1]:
            return torch.full((len(known.boxes), height, width), -1, device=device)
        smallest = torch.where(inside, area, torch.inf).min(1)
        labels = place[known.labels].gather(1, smallest.indices.flatten(1)).view_as(smallest.indices)
        return labels.masked_fill(~inside.any(1), -1)

    # --- adaptation --------------------------------------------------------------------------------------------------

    def adapted(self, places: Tensor, prompts) -> tuple[Tensor, Tensor]:
        """(F' [B, T, e], T [C, e]) of places [B, e, h, w], where the names of `prompts` are sought."""
        words = F.normalize(prompts.features(self.backbone.text, self.context).float(), dim=-1)
        return self.visual(places.flatten(2).mT, words, self.backbone.logit_scale.detach()), words

    def adapt_loss(self, index: Tensor) -> Tensor:
        """(1) of the images at `index` [B]; 0 if none of their places is in a base box."""
        places, words = self.adapted(self.places[index], self.base_prompts)
        labels = self.place_labels[index].flatten(1)
        logits = self.backbone.logit_scale * places[labels >= 0] @ words.T
        return F.cross_entropy(logits, labels[labels >= 0], reduction="sum") / (labels >= 0).sum().clamp_min(1)

    @torch.no_grad()
    def label(self) -> PseudoLabels:
        """(2): pseudo boxes of new classes in all training images."""
        regions, config, new = self.regions, self.config, torch.tensor(self.new, device=self.backbone.device)
        if not len(new):
            empty = regions.there & False
            return PseudoLabels(regions.boxes, empty.long(), empty.float(), empty)
        if self.adapts:
            places, words = self.adapted(self.places, self.new_prompts)
            places = places.mT.unflatten(2, self.places.shape[-2:])
        else:
            places, words = self.places, self.text[new]
        image = torch.arange(len(places), device=places.device).repeat_interleave(regions.boxes.shape[1])
        rows = torch.cat([image[:, None].to(places.dtype), regions.boxes.flatten(0, 1)], 1)
        ratio = places.shape[-1] / self.backbone.image_size
        pooled = roi_align(places, rows, GRID, ratio, sampling_ratio=2, aligned=True).mean((2, 3))
        features = F.normalize(pooled, dim=-1).unflatten(0, regions.boxes.shape[:2])
        sure, which = (self.backbone.logit_scale * features @ words.T).softmax(-1).max(-1)
        score = config.objectness * regions.objectness + (1 - config.objectness) * sure
        found = chosen(regions.boxes, score, new[which], regions.there, config.threshold, config.doubles)
        return found.off(self.granted, config.off_base)

    # --- learning ----------------------------------------------------------------------------------------------------

    def stages(self, task) -> list:
        """Prompts, if there is an adaptation; then the head."""
        images = self.learns_from(task)
        return [images, images] if self.adapts else [images]

    @property
    def adapting(self) -> bool:
        """Whether it is the turn of the prompts."""
        return self.adapts and self.stage == 0

    @property
    def planned_epochs(self) -> int:
        return self.config.adapt_epochs if self.adapting else self.config.epochs

    def learning_rate(self, step: int, steps: int) -> float:
        return rate_by_step(step, steps, self.config.adapt_lr if self.adapting else self.config.lr, max(1, steps // 10))

    def loss(self, batch: Batch) -> Tensor:
        index = batch.index.to(self.regions.maps.device)
        if self.adapting:
            return self.adapt_loss(index)
        if self.pseudo is None:
            self.pseudo = self.label()
            self.targets = self.granted.beside(self.pseudo)
        return self.named_loss(self.regions.at(index), self.targets.at(index), range(len(self.text)))


class VisualPrompt(nn.Module):
    """Places [B, T, e] that attend to the words [C, e] that are sought, and keep what they were beside it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.out = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        nn.init.eye_(self.query.weight)
        nn.init.zeros_(self.out.weight)

    def forward(self, places: Tensor, words: Tensor, scale: Tensor) -> Tensor:
        attention = (scale * self.query(places) @ words.T).softmax(-1)
        return F.normalize(places + self.out(attention @ words), dim=-1)
