"""XPM: a teacher gives caption words a region and its mask, and a student learns from masks that it may doubt.

Huynh et al., "Open-Vocabulary Instance Segmentation via Robust Cross-Modal Pseudo-Labeling", arXiv 2111.12698; code:
hbdat/cvpr22_cross_modal_pseudo_labeling.

A teacher learns names and class-agnostic masks of base objects. For a word w of a caption it says which region is meant and
what its outline is; the student, which begins as the teacher, learns from base objects and from these:

    e_r = embedding of region r, background has the logit 0         r*_w = argmax_r <e_r, t_w>                             (1)
    pseudo box = r*_w, pseudo mask = [ sigmoid(m(r*_w)) > 0.5 ]     m: mask logits on a grid in the box                    (2)
    u = conv(sg(features)),  sigma = exp(u / 2),  m' = m + eps sigma,  eps ~ N(0, 1), one sample per mask and place        (3)
    L = L_base(names) + L_base(masks) + lambda L_pseudo(names) + mu BCE(m', pseudo mask)                                   (4)
    lambda = 0.01 / mean sigma, mu = 1   (lambda = 0.1, mu = `mask_weight` if `reweight` or `noise` is off)

Where sigma is large, the gradient of a pseudo mask is noise: a doubtful place counts less. sigma learns in the first seventh of
the student's steps and stays; it sees detached features, so that the features cannot make masks doubtful. Names of L_base
compete among base classes, those of L_pseudo among all that captions may name; background counts 0.2.

What differs from the release: see `dense.region_learner`. Words are CLIP's (there, BERT's, pretrained with captions and an
embedding layer that fits them), and the vocabulary is that of the task (there, LVIS's). The mask head reads its own grid of the
frozen map behind one convolution (there, behind the detector's last stage, which learns), its targets are true masks pooled into
that grid, and it learns in the granted and pseudo boxes themselves (there, in all proposals that meet them). `damage` spoils a
share of the pseudo masks by shifting them, to see who bears it; `noise` off is the plain cross-entropy (m' = m). Embedded:
`reweight` is off, because lambda would begin at 0.01 / exp(1/2) = 0.006 and sigma has no time to fall, and pseudo masks count
fully.

Dimensions: N images, B of them at once, n words, P proposals, R regions, W channels, M = 14 side of a mask's grid, S side of
the input, C classes, e joint width.
"""

from __future__ import annotations

import copy
import dataclasses
import typing

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torchvision.ops import roi_align

from vlmlab.datasets.captions import said
from vlmlab.errors import VlmlabError
from vlmlab.methods.dense.detections import Detections
from vlmlab.methods.dense.proposals import STRIDE
from vlmlab.methods.dense.pseudo_labels import PseudoLabels
from vlmlab.methods.dense.region_learner import EMBEDDED
from vlmlab.methods.dense.student import Student, StudentRecipe
from vlmlab.methods.method import Batch, option, rate_by_step
from vlmlab.registry import register

GRID = 7  # of the features under a box; masks have twice as many places a side
AT_ONCE = 64  # images that the teacher reads at once


@register(
    "xpm",
    title="XPM: Open-Vocabulary Instance Segmentation via Robust Cross-Modal Pseudo-Labeling",
    paper="arXiv:2111.12698",
    year=2022,
    section="7.1.3",
    family="detection",
    setup="open-vocabulary",
    learns="a head on regions, a mask head with its doubt",
    tasks=("detection",),
)
class XPM(Student):
    """Teacher, then student, over one pair of heads."""

    grounded = "boxes, masks and captions"

    @dataclasses.dataclass
    class Config(StudentRecipe):
        background: float = option(0.2, "weight of background in the cross-entropy", 0.0, 1.0)
        mask_width: int = option(256, "channels of the mask head", 1, 4096)
        noise: bool = option(True, "doubt pseudo masks (3)")
        noise_share: float = option(1 / 7, "share of the student's steps in which sigma learns", 0.0, 1.0)
        reweight: bool = option(True, "lambda from the mean of sigma; off: 0.1")
        mask_weight: float = option(0.1, "mu, weight of pseudo masks where lambda is not made from sigma", 0.0, 100.0)
        damage: float = option(0.0, "share of pseudo masks that are spoilt, for study", 0.0, 1.0)
        epochs: int = option(7, "epochs of the teacher", 1, 10000)
        student_epochs: int = option(5, "epochs of the student; 0: the teacher alone", 0, 10000)
        batch_size: int = option(8, "images a step", 1, 4096)
        lr: float = option(5e-4, "learning rate of the teacher", 0.0, 10.0)
        student_lr: float = option(5e-3, "learning rate of the student", 0.0, 10.0)
        weight_decay: float = option(1e-4, "weight decay", 0.0, 1.0)

    embedded: typing.ClassVar[dict] = EMBEDDED | {
        "mask_width": 64,
        "epochs": 6,
        "student_epochs": 5,
        "student_lr": 1e-3,
        "noise_share": 0.5,
        "reweight": False,
        "mask_weight": 1.0,
    }

    def prepare(self, task) -> None:
        super().prepare(task)
        images = self.learns_from(task)
        if not images.captioned:
            raise VlmlabError("XPM learns from captions, and these images have none; choose tableau, which has them")
        device = self.backbone.device
        self.mask_head = MaskHead(self.regions.maps.shape[1], self.config.mask_width).to(device)
        self.true_masks = self.masks_of(images)  # [N, Q, M, M]
        self.words = said([images.caption(i) for i in range(len(images))], self.classes).nonzero().to(device)
        heads = [*self.student.parameters(), *self.mask_head.parameters()]
        # What the teacher had learned when the student began, so that a resumed run has the same teacher.
        self.register_buffer("taught", torch.zeros(sum(p.numel() for p in heads), device=device))
        self.register_buffer("doubted", torch.zeros((), dtype=torch.long))  # steps in which sigma has learned
        self.pseudo: PseudoLabels | None = None

    @property
    def distils(self) -> bool:
        return False

    # --- masks -------------------------------------------------------------------------------------------------------

    def masks_of(self, images) -> Tensor:
        """True masks of the granted objects in the grid of their boxes, [N, Q, M, M] of 0 and 1."""
        rows = []
        for i, frame in enumerate(self.frames_of):
            truth = frame.truth(images.truth(i))
            if truth.instances is None:
                raise VlmlabError("XPM learns from masks, and these images have none; choose tableau, which has them")
            rows.append(in_boxes(truth.instances, truth.boxes))
        most = self.granted.boxes.shape[1]
        padded = [F.pad(row, (0, 0, 0, 0, 0, most - len(row))) for row in rows]
        return torch.stack(padded).to(self.backbone.device)

    def mask_features(self, maps: Tensor, boxes: Tensor) -> Tensor:
        """[B, n, W, 7, 7] of maps [B, W, h, h] under boxes [B, n, 4] in pixels of the input."""
        maps = (maps - self.mean[:, None, None]) / self.deviation[:, None, None]
        image = torch.arange(len(boxes), device=boxes.device).repeat_interleave(boxes.shape[1])
        rows = torch.cat([image[:, None].to(boxes.dtype), boxes.flatten(0, 1) / self.tested.ratio], 1)
        found = roi_align(maps, rows.to(maps.dtype), GRID, 1 / STRIDE, sampling_ratio=2, aligned=True)
        return found.unflatten(0, boxes.shape[:2])

    # --- the teacher -------------------------------------------------------------------------------------------------

    def stages(self, task) -> list:
        """The teacher on base objects, then the student."""
        images = self.learns_from(task)
        return [images, images] if self.config.student_epochs else [images]

    @property
    def planned_epochs(self) -> int:
        return self.config.epochs if self.stage == 0 else self.config.student_epochs

    def learning_rate(self, step: int, steps: int) -> float:
        lr = self.config.lr if self.stage == 0 else self.config.student_lr
        return rate_by_step(step, steps, lr, max(1, steps // 10))

    def optimizer(self, steps: int):
        self.doubts_until = round(self.config.noise_share * steps)
        return super().optimizer(steps)

    @torch.no_grad()
    def teach(self) -> None:
        """(1) and (2) of all training images, by the heads as the student found them."""
        heads = [*self.student.parameters(), *self.mask_head.parameters()]
        if not self.taught.any():
            self.taught.copy_(parameters_to_vector(heads))
        student, mask_head = copy.deepcopy(self.student), copy.deepcopy(self.mask_head)
        vector_to_parameters(self.taught, [*student.parameters(), *mask_head.parameters()])
        count, device = len(self.regions.boxes), self.backbone.device
        image = self.words[:, 0].contiguous()
        most = max(1, int(image.bincount(minlength=count).max())) if len(image) else 1
        slot = torch.arange(len(image), device=device) - torch.searchsorted(image, image)
        boxes, there = torch.zeros(count, most, 4, device=device), torch.zeros(count, most, device=device) > 0
        labels = torch.zeros(count, most, dtype=torch.long, device=device)
        labels[image, slot] = self.words[:, 1]
        there[image, slot] = self.regions.there.any(1)[image]
        masks = []
        for start in range(0, count, AT_ONCE):
            own = slice(start, start + AT_ONCE)
            regions = self.regions.at(torch.arange(count, device=device)[own])
            scores = student(self.features(regions.maps, regions.boxes)) @ self.text.T  # [B, P, C]
            scores = scores.masked_fill(~regions.there[..., None], -torch.inf)
            best = scores.argmax(1).gather(1, labels[own])  # [B, most]
            boxes[own] = regions.boxes.gather(1, best[..., None].expand(-1, -1, 4))
            masks.append(mask_head(self.mask_features(regions.maps, boxes[own]))[0] > 0)
        boxes = boxes * there[..., None]
        self.pseudo = PseudoLabels(boxes, labels, there.float(), there)
        self.pseudo_masks = self.spoilt(torch.cat(masks).float())

    def spoilt(self, masks: Tensor) -> Tensor:
        """Masks [N, Q, M, M], a share `damage` of them shifted by half of their grid; the same ones every time."""
        drawn = torch.rand(masks.shape[:2], generator=torch.Generator().manual_seed(0)).to(masks.device)
        return torch.where((drawn < self.config.damage)[..., None, None], masks.roll(GRID, -1), masks)

    # --- learning ----------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> Tensor:
        index = batch.index.to(self.regions.maps.device)
        regions, known = self.regions.at(index), self.granted.at(index)
        total = self.named_loss(regions, known, self.base.tolist())
        logits, _ = self.mask_head(self.mask_features(regions.maps, known.boxes)[known.there])
        total = total + mask_loss(logits, self.true_masks[index][known.there])
        return total if self.stage == 0 else total + self.pseudo_loss(regions, index)

    def pseudo_loss(self, regions, index: Tensor) -> Tensor:
        """The last two terms of (4), of the images at `index` [B]."""
        if self.pseudo is None:
            self.teach()
        own = self.pseudo.at(index)
        features = self.mask_features(regions.maps, own.boxes)[own.there]
        learns = int(self.doubted) < self.doubts_until
        logits, sigma = self.mask_head(features, learns)
        self.doubted += 1
        weight, mask_weight = 0.1, self.config.mask_weight
        if self.config.noise:
            if self.config.reweight:
                weight, mask_weight = (0.01 / sigma.detach().mean() if len(sigma) else 0.0), 1.0
            logits = logits + torch.randn_like(sigma) * sigma  # (3)
        masks = mask_loss(logits, self.pseudo_masks[index][own.there])
        return weight * self.named_loss(regions, own, range(len(self.text))) + mask_weight * masks

    @torch.no_grad()
    def detect(self, batch: Batch) -> list[Detections]:
        regions = self.tested.find(batch.images)
        found = super().detect(batch)
        masks = self.mask_head(self.mask_features(regions.maps, regions.boxes))[0].sigmoid()  # [B, P, M, M]
        side = batch.images.shape[-1]
        for one, boxes, own in zip(found, regions.boxes, masks, strict=True):
            which = (one.boxes[:, None] == boxes).all(-1).float().argmax(1)  # the proposal that each detection is
            one.masks = pasted(own, boxes, side)[which]
        return found


class MaskHead(nn.Module):
    """Features [..., W, 7, 7] under boxes -> (logits [..., 14, 14] of a mask, sigma of the same shape)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.before = nn.Conv2d(channels, width, 3, padding=1)
        self.up = nn.ConvTranspose2d(width, width, 2, 2)
        self.mask, self.doubt = nn.Conv2d(width, 1, 1), nn.Conv2d(width, 1, 1)
        for layer in (self.before, self.up, self.mask):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.doubt.weight, std=0.001)
        nn.init.ones_(self.doubt.bias)

    def forward(self, features: Tensor, doubt_learns: bool = False) -> tuple[Tensor, Tensor]:
        shape = features.shape[:-3]
        return tuple(
            x.unflatten(0, shape) for x in self.read(F.relu(self.before(features.flatten(0, -4))), doubt_learns)
        )

    def read(self, x: Tensor, doubt_learns: bool) -> tuple[Tensor, Tensor]:
        """Logits and sigma [R, 14, 14] of [R, width, 7, 7]; (3), with what makes sigma fixed unless it learns."""
        x = F.relu(self.up(x))
        weight, bias = self.doubt.weight, self.doubt.bias
        if not doubt_learns:
            weight, bias = weight.detach(), bias.detach()
        return self.mask(x)[:, 0], (0.5 * F.conv2d(x.detach(), weight, bias)).exp()[:, 0]


def mask_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Mean binary cross-entropy of logits [R, M, M] against masks of 0 and 1; 0 without a region."""
    if not len(logits):
        return logits.sum()
    return F.binary_cross_entropy_with_logits(logits, masks)


def in_boxes(masks: Tensor, boxes: Tensor) -> Tensor:
    """Masks [n, H, W] bool pooled into a grid over their boxes [n, 4]: [n, M, M] of 0 and 1."""
    if not len(masks):
        return torch.zeros(0, 2 * GRID, 2 * GRID)
    rows = torch.cat([torch.arange(len(boxes))[:, None].to(boxes.dtype), boxes], 1)
    found = roi_align(masks[:, None].float().cpu(), rows.cpu(), 2 * GRID, 1.0, sampling_ratio=2, aligned=True)
    return (found[:, 0] >= 0.5).float()


def pasted(masks: Tensor, boxes: Tensor, side: int) -> Tensor:
    """Probabilities [n, M, M] in the grids of boxes [n, 4] -> [n, side, side] bool: above 0.5, and nothing outside of a box."""
    if not len(masks):
        return torch.zeros(0, side, side, dtype=torch.bool, device=masks.device)
    centre = torch.arange(side, device=masks.device) + 0.5
    size = (boxes[:, 2:] - boxes[:, :2]).clamp_min(1e-3)
    x, y = (2 * (centre - boxes[:, k : k + 1]) / size[:, k : k + 1] - 1 for k in (0, 1))  # [n, side], -1 to 1 inside
    grid = torch.stack([x[:, None].expand(-1, side, -1), y[:, :, None].expand(-1, -1, side)], -1)
    found = F.grid_sample(masks[:, None], grid, padding_mode="zeros", align_corners=False)[:, 0]
    inside = (x.abs() <= 1)[:, None] & (y.abs() <= 1)[:, :, None]
    return (found > 0.5) & inside
