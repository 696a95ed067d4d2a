"""RKD, object-centric open-vocabulary detection: few good boxes, how regions resemble each other, and names of whole images.

Bangalath et al., "Bridging the Gap between Object and Image-level Representations for Open-Vocabulary Detection",
arXiv 2207.03482; code: hanoonaR/object-centric-ovd, commit c962116.

    z_r = W h_r,   h_r the hidden layers on RoIAlign(map, r)                              [R, e]
    l_rc = s cos(z_r, t_c)                                no background: sigmoid per class
    L_cls = 1/R sum_r sum_(c base) BCE(l_rc, [c = y_r])
    L_1   = 100 w1 mean |S - V|                           S, V [K, e]: unit students and CLIP's crops of the K best boxes
    L_irm = 100 w2 || rho(S S') - rho(V V') ||_F^2        rho divides a row by the sum of its absolute values
    L_pis = 0.1 * mean over images, mean over their names c, of sum_(all c') BCE(l_(b(c) c'), [c' = c])
    L = L_cls + L_1 + L_irm + L_pis

The relation term asks that regions which look alike to CLIP look alike to the student. L_pis learns from names that a caption
says, new ones among them: b(c) is a pseudo box for the name. With `transfer`, the detector learns without L_pis first
(`rkd_epochs`); then its projection W is frozen, and the classifier reads

    z_r = A2(leaky(A1(W))) h_r + B2(leaky(B1(h_r)))       A, B linear with biases; A1, A2 act on the rows of W

What differs from the release, beyond `dense.region_learner`. Its boxes, for distillation and for names, come from MAVL, a
detector that was pretrained with words; here they are the proposer's best (`distilled` an image), and b(c) is the proposal
whose crop CLIP finds nearest to the name. It draws boxes and image labels in batches of their own, 1 to 4; here every step has
both. Its pseudo-box term counts a background column of logit 0, which adds log 2 and no gradient. Its base detector learns
90,000 steps before anything is distilled; here distillation begins at once, and `rkd_epochs` are as long as both. Embedded:
`transfer` is off, because the first stage doubles the time of a fit.

Dimensions: R regions, K = `distilled` per image, H width of the hidden layers, C classes, e joint width.
"""

from __future__ import annotations

import dataclasses
import typing

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.datasets.captions import said
from vlmlab.errors import VlmlabError
from vlmlab.methods.dense.crops import SHAPES
from vlmlab.methods.dense.detections import Detections
from vlmlab.methods.dense.distillation import relation
from vlmlab.methods.dense.region_learner import EMBEDDED, RegionLearner, RegionRecipe
from vlmlab.methods.dense.regions import Regions
from vlmlab.methods.method import Batch, option
from vlmlab.registry import register

LEAK = 0.1  # slope of the leaky units below 0


class WeightTransfer(nn.Module):
    """A frozen projection W [e, H] with its bias [e], and the classifier's that is made of it: [..., H] -> [..., e]."""

    def __init__(self, frozen: Tensor, bias: Tensor, residual: int = 1024) -> None:
        super().__init__()
        joint, hidden = frozen.shape
        self.register_buffer("frozen", frozen)
        self.register_buffer("bias", bias)
        self.fc1, self.fc2 = nn.Linear(hidden, joint), nn.Linear(joint, hidden)
        self.fc3, self.fc4 = nn.Linear(hidden, residual), nn.Linear(residual, joint)

    @torch.no_grad()
    def freeze(self, projection: nn.Linear) -> None:
        """Take the projection as it is now."""
        self.frozen.copy_(projection.weight)
        self.bias.copy_(projection.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        weights = self.fc2(F.leaky_relu(self.fc1(self.frozen), LEAK))
        return F.linear(hidden, weights) + self.fc4(F.leaky_relu(self.fc3(hidden), LEAK))


@register(
    "rkd",
    title="RKD: Bridging the Gap between Object and Image-level Representations for Open-Vocabulary Detection",
    paper="arXiv:2207.03482",
    year=2022,
    section="7.1.1",
    family="detection",
    setup="open-vocabulary",
    learns="a head on regions",
    tasks=("detection",),
)
class RKD(RegionLearner):
    """One head; sigmoid scores."""

    @dataclasses.dataclass
    class Config(RegionRecipe):
        distill: float = option(0.15, "w1, weight of the distance to CLIP's crops", 0.0, 1000.0)
        relations: float = option(0.15, "w2, weight of the relations among regions", 0.0, 1000.0)
        image_labels: float = option(0.1, "weight of the names in captions; 0: no caption is read", 0.0, 100.0)
        distilled: int = option(5, "boxes of an image that are distilled", 1, 1000)
        transfer: bool = option(True, "whether the classifier's weights are made from the distilled ones")
        rkd_epochs: int = option(26, "epochs without image labels before the transfer", 0, 10000)
        scale: float = option(50.0, "factor of the cosines; 0: the backbone's own", 0.0, 1000.0)
        crop_shape: str = option("centred", "how a box is cut out", choices=SHAPES)
        crop_scales: str = option("1", "sizes of the crops, in sizes of the box")
        most_detections: int = option(100, "detections of an image", 1, 10000)
        epochs: int = option(13, "epochs over the training images", 1, 10000)
        batch_size: int = option(16, "images a step", 1, 4096)
        lr: float = option(0.02, "learning rate after the warm-up", 0.0, 10.0)
        weight_decay: float = option(1e-4, "weight decay", 0.0, 1.0)

    embedded: typing.ClassVar[dict] = EMBEDDED | {
        "scale": 0.0,
        "transfer": False,
        "rkd_epochs": 4,
        "most_detections": 300,
    }

    def prepare(self, task) -> None:
        super().prepare(task)
        images = self.learns_from(task)
        config = self.config
        self.student = self.head()
        self.named_boxes = None
        if config.image_labels:
            if not images.captioned:
                raise VlmlabError("rkd reads captions, and these images have none; set image_labels=0")
            names = said([images.caption(i) for i in range(len(images))], self.classes)  # [N, C]
            self.named_boxes = pseudo_boxes(self.regions, self.text, names)
        if config.transfer:
            first = self.student.project.requires_grad_(config.rkd_epochs > 0)
            self.transfer = WeightTransfer(first.weight.detach().clone(), first.bias.detach().clone())
            self.transfer.to(self.backbone.device)

    def stages(self, task) -> list:
        """With `transfer`, everything but L_pis, whose projection is frozen then; in any case, everything."""
        images = self.learns_from(task)
        return [images, images] if self.distils_first else [images]

    @property
    def distils_first(self) -> bool:
        """Whether there is a stage without image labels."""
        return self.config.transfer and self.config.rkd_epochs > 0

    @property
    def distilling(self) -> bool:
        """Whether it is under way."""
        return self.distils_first and self.stage == 0

    @property
    def planned_epochs(self) -> int:
        return self.config.rkd_epochs if self.distilling else self.config.epochs

    def loss(self, batch: Batch) -> Tensor:
        regions = self.regions_of(batch)
        if self.config.transfer and not self.distilling:
            self.transfer.freeze(self.student.project)
        own = self.labelled(batch, regions)
        logits = self.logits_of(self.features(regions.maps, own.boxes)[own.there], self.base_text, learning=True)
        loss = class_loss(logits, own.labels[own.there])
        loss = loss + self._distillation(regions)
        if self.named_boxes is not None and not self.distilling:
            box, there = (part[batch.index.to(part.device)] for part in self.named_boxes)  # [B, C]
            image, name = there.nonzero(as_tuple=True)
            chosen = regions.boxes[image, box[image, name]][:, None]  # [n, 1, 4]
            features = self.features(regions.maps[image], chosen)[:, 0]
            logits = self.logits_of(features, self.text, learning=True)
            share = 1 / there.sum(1)[image]
            loss = loss + self.config.image_labels * image_label_loss(logits, name, share, len(there))
        return loss

    def _distillation(self, regions: Regions) -> Tensor:
        """L_1 + L_irm of the best boxes of the images."""
        most = min(self.config.distilled, regions.boxes.shape[1])
        there = regions.there[:, :most]
        features = self.features(regions.maps, regions.boxes[:, :most])[there]
        students = self.student.hidden(features, learning=True)
        if self.config.transfer and not self.distilling:  # the projection is frozen
            students = F.linear(students, self.transfer.frozen, self.transfer.bias)
        else:
            students = self.student.project(students)
        return distillation(
            F.normalize(students, dim=-1),
            regions.embeddings[:, :most][there],
            self.config.distill,
            self.config.relations,
        )

    def logits_of(self, features: Tensor, text: Tensor, learning: bool = False) -> Tensor:
        """[..., C] of features [..., F] and words [C, e]; before the transfer, while it learns, by the projection itself."""
        hidden = self.student.hidden(features, learning)
        own = self.config.transfer and not (learning and self.distilling)
        embeddings = self.transfer(hidden) if own else self.student.project(hidden)
        return self.scale * F.normalize(embeddings, dim=-1) @ text.T

    @torch.no_grad()
    def detect(self, batch: Batch) -> list[Detections]:
        found = self.tested.find(batch.images)
        logits = self.logits_of(self.features(found.maps, found.boxes), self.text)
        return self.named(found.boxes, logits.sigmoid(), found.there)


def class_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """1/R sum_r sum_c BCE of logits [R, C]; labels [R] in 0 to C, where C is none of them."""
    if not len(logits):
        return logits.sum()
    target = F.one_hot(labels, logits.shape[1] + 1)[:, :-1].to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, target, reduction="sum") / len(logits)


def distillation(students: Tensor, teachers: Tensor, distill: float, relations: float) -> Tensor:
    """100 w1 mean |S - V| + 100 w2 || rho(S S') - rho(V V') ||_F^2 of unit rows [K, e]; 0 without a row."""
    if not len(students):
        return students.sum()
    return 100 * (distill * F.l1_loss(students, teachers) + relations * relation(students, teachers))


def image_label_loss(logits: Tensor, names: Tensor, share: Tensor, images: int) -> Tensor:
    """Binary cross-entropy, summed over the classes, of the pseudo box of every name; the mean over the images.

    Args:
        logits: [n, C] of the boxes. names: [n], what the caption calls each. share: [n], 1 / how many names its image has.
        images: how many images there are, those without a name counted.
    """
    target = F.one_hot(names, logits.shape[1]).to(logits.dtype)
    losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1)
    return (losses * share).sum() / images


def pseudo_boxes(regions: Regions, text: Tensor, names: Tensor) -> tuple[Tensor, Tensor]:
    """For every image and class, the proposal whose crop is nearest to the name [N, C], and whether the caption says it."""
    scores = regions.embeddings @ text.T  # [N, P, C]
    scores = scores.masked_fill(~regions.there[..., None], -torch.inf)
    return scores.argmax(1), names.to(text.device).bool() & regions.there.any(1, keepdim=True)
