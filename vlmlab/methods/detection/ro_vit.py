"""RO-ViT: contrastive pretraining that sees an image as a region of a larger one, and a detector on what it gives.

Kim, Angelova and Kuo, "Region-Aware Pretraining for Open-Vocabulary Object Detection with Vision Transformers", arXiv 2305.07011;
code: google-research/google-research, fvlm/rovit (the two parts of the pretraining) and fvlm/modeling (the detector of the family).

A ViT learns the positions of whole images by contrast, and a detector then asks it for regions. RO-ViT adds to the patches
a random crop of the positions:

    E' = bilinear(E, finer x finer),   E_i = RoIAlign(E', box_i) on the grid of the patches                             (1)
         box_i: area 0.1 to 1 of the grid, width / height 1/2 to 2, drawn per image
    u_i = n(mean of the patch tokens in the joint space),  L_ij = s <u_i, y_j> - b    y_j: caption of image j; s, b learned
    L_pre = 1/B sum_ij 2 a_ij (1 - p_ij)^gamma (-log p_ij)                                                              (2)
         p_ii = sigmoid(L_ii), a_ii = alpha;   p_ij = 1 - sigmoid(L_ij), a_ij = 1 - alpha

    detector, on the tokens of images `zoom` times as large, with the whole grid of positions, interpolated:
    z_r = head(RoIAlign(tokens, r));   p_r = softmax over names and the word 'background' of cos(z_r, t) / (0.1 T)     (3)
    q_r = softmax of cos(mean of the tokens in r, t) / 0.01                                                            (4)
    score = p^(1 - 0.35) q^0.35 on base, p^(1 - 0.65) q^0.65 on new classes, background from p; made a sum of 1        (5)

(4) is the pretrained tower as its own teacher: it names true boxes, too, which `teacher_base` and `teacher_new` measure.

What differs from the release and the paper, beyond `dense.region_learner`. The tower starts from the backbone's and is
pretrained for a few epochs on the training images and their captions, where the paper learns from billions of web images; the text
tower is frozen, and captions are encoded once. That shows the recipe at work, not what it does at its scale. Sigmoids need an
offset b where a softmax needs none; the release gives logits to (2) without saying how they are made, so b is ours (0: none at the
start). The detector reads frozen tokens, the paper finetunes the tower; proposals are the shared proposer's, not those of
a centre-ness head. A box whose width or height does not fit is cut at the grid, where the release's sampler draws again. (2) is
divided by the number of images; the release leaves the divisor to the caller. Exponents of (5) are the defaults of the family's code.
Named settings: `positions="whole"` and `contrast="softmax"` are the other arms of the paper's tables.

Dimensions: B images, S side of the input, d width of the tower, h x w patches, R regions, C classes, e joint width.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import typing
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from vlmlab.backbones.blocks import run_block
from vlmlab.errors import VlmlabError
from vlmlab.methods.dense.boxes import side_by_side
from vlmlab.methods.dense.detections import Detections
from vlmlab.methods.dense.fusion import geometric
from vlmlab.methods.dense.proposals import CELLS
from vlmlab.methods.dense.region_learner import EMBEDDED, RegionLearner, RegionRecipe, text_loss
from vlmlab.methods.dense.roi_head import RegionHead
from vlmlab.methods.dense.text_bank import sentence_bank
from vlmlab.methods.method import Batch, option, rate_by_step
from vlmlab.registry import register

AREA, ASPECT = (0.1, 1.0), (0.5, 2.0)
POOLED = 7  # RoIAlign's grid of (4)
AT_ONCE = 64  # images whose tokens are computed together


@register(
    "ro_vit",
    title="RO-ViT: Region-Aware Pretraining for Open-Vocabulary Object Detection with Vision Transformers",
    paper="arXiv:2305.07011",
    year=2023,
    section="7.1.1",
    family="detection",
    setup="open-vocabulary",
    learns="the image tower, then a head on regions",
    tasks=("detection",),
    needs=("image blocks",),
)
class ROViT(RegionLearner):
    """Pretraining with cropped positions, then a head on the tokens."""

    @dataclasses.dataclass
    class Config(RegionRecipe):
        positions: str = option("cropped", "positions of the patches in pretraining", choices=("cropped", "whole"))
        contrast: str = option("focal", "how images and captions are contrasted", choices=("focal", "softmax"))
        alpha: float = option(0.5, "share of the pairs that belong together in (2)", 0.0, 1.0)
        gamma: float = option(1.0, "power by which sure pairs count less in (2)", 0.0, 10.0)
        offset: float = option(0.0, "b of the focal contrast at the start", -1000.0, 1000.0)
        finer: int = option(64, "side of the grid that positions are cropped from", 1, 256)
        pretrain_epochs: int = option(10, "epochs of pretraining; 0: the backbone's tower as it is", 0, 10000)
        pretrain_batch: int = option(4096, "images of a step of pretraining", 2, 65536)
        pretrain_lr: float = option(5e-4, "learning rate of pretraining", 0.0, 10.0)
        zoom: float = option(4.0, "how much larger images are when they are detected in", 0.5, 8.0)
        temperature: float = option(0.1, "factor of the learned temperature of (3)", 1e-4, 10.0)
        tau: float = option(0.01, "temperature of (4)", 1e-4, 1.0)
        base_share: float = option(0.35, "exponent of q on base classes", 0.0, 1.0)
        new_share: float = option(0.65, "exponent of q on new classes", 0.0, 1.0)
        objectness: float = option(0.0, "exponent of the proposer's objectness in the score", 0.0, 10.0)
        epochs: int = option(12, "epochs of the head", 1, 10000)
        batch_size: int = option(16, "images a step of the head", 1, 4096)
        lr: float = option(0.02, "learning rate of the head", 0.0, 10.0)
        weight_decay: float = option(1e-4, "weight decay", 0.0, 1.0)

    embedded: typing.ClassVar[dict] = EMBEDDED | {
        "offset": 14.0,
        "finer": 24,
        "pretrain_epochs": 3,
        "pretrain_batch": 60,
        "pretrain_lr": 1e-4,
        "zoom": 2.0,
    }

    @property
    def distils(self) -> bool:
        return False

    @property
    def pretrains(self) -> bool:
        """Whether the tower learns at all."""
        return self.config.pretrain_epochs > 0

    @property
    def pretraining(self) -> bool:
        """Whether it is the tower's turn."""
        return self.pretrains and self.stage == 0

    def prepare(self, task) -> None:
        super().prepare(task)
        self.pictures, config, device = self.learns_from(task), self.config, self.backbone.device
        visual = self.backbone.image.visual
        if self.pretrains:
            if not self.pictures.captioned:
                raise VlmlabError("ro_vit reads captions, and these images have none; set pretrain_epochs=0")
            self.tower = copy.deepcopy(visual).float().requires_grad_(True)
            self.log_scale = nn.Parameter(self.backbone.logit_scale.log().to(device))
            if config.contrast == "focal":
                self.offset = nn.Parameter(torch.tensor(config.offset, device=device))
            self.said = sentence_bank(self.backbone, [self.pictures.caption(i) for i in range(len(self.pictures))])
        else:
            object.__setattr__(self, "tower", visual)  # frozen, and no part of what is learned
        width = visual.conv1.out_channels
        self.mean, self.deviation = torch.zeros(width, device=device), torch.ones(width, device=device)
        head = RegionHead(width * CELLS**2, self.text.shape[1], config.hidden, config.dropout)
        self.student, self.temperature = head.to(device), nn.Parameter(torch.ones((), device=device))
        self.background = sentence_bank(self.backbone, ["background"])  # [1, e]
        self.token_maps: Tensor | None = None

    # --- the tower ---------------------------------------------------------------------------------------------------

    def tokens(self, images: Tensor, positions: Tensor) -> Tensor:
        """Patch tokens [B, h w, d] behind the last block of images [B, 3, ...], with positions [B or 1, h w, d]."""
        visual = self.tower
        patches = visual.conv1(images.to(visual.conv1.weight.dtype)).flatten(2).mT
        first = (visual.class_embedding + visual.positional_embedding[0]).expand(len(patches), 1, -1)
        x = visual.ln_pre(torch.cat([first, patches + positions], 1))
        for block in visual.transformer.resblocks:
            x = run_block(block, x)
        return visual.ln_post(x[:, 1:])

    def joint(self, x: Tensor) -> Tensor:
        """[..., d] -> [..., e]."""
        return x if self.tower.proj is None else x @ self.tower.proj

    @torch.no_grad()
    def maps_of(self, images: Tensor) -> Tensor:
        """Tokens [B, d, h, w] of images [B, 3, S, S], `zoom` times enlarged."""
        visual, (ph, pw) = self.tower, self.tower.conv1.stride
        height, width = (
            max(1, round(self.config.zoom * n / p)) for n, p in zip(images.shape[-2:], (ph, pw), strict=True)
        )
        large = F.interpolate(images.float(), (height * ph, width * pw), mode="bilinear", antialias=True)
        positions = on_a_grid(visual.positional_embedding[1:], visual.grid_size, (height, width))
        return self.tokens(large, positions.flatten(2).mT).mT.unflatten(2, (height, width)).float()

    def pretraining_loss(self, index: Tensor) -> Tensor:
        """(1) and (2) of the training images at `index` [B]."""
        config, visual = self.config, self.tower
        images = self.framed([self.pictures.images(i) for i in index.tolist()])[0]
        positions = visual.positional_embedding[1:]
        if config.positions == "cropped":
            boxes = random_regions(len(images), config.finer, images.device)
            positions = cropped_positions(positions, visual.grid_size, boxes, config.finer)
        else:
            positions = positions[None]
        seen = F.normalize(self.joint(self.tokens(images, positions).mean(1)).float(), dim=-1)
        logits = self.log_scale.exp() * seen @ self.said[index].T
        if config.contrast == "focal":
            return focal_contrast(logits - self.offset, config.alpha, config.gamma) / len(logits)
        own = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2

    # --- the detector ------------------------------------------------------------------------------------------------

    def keep_tokens(self) -> None:
        """The tokens of all training images, once the tower is what it will be, and how they are standardised."""
        parts = self.framed_in_turn(self.pictures)
        maps = [self.maps_of(chunk).half().cpu() for _, images, _ in parts for chunk in images.split(AT_ONCE)]
        self.token_maps = torch.cat(maps)
        device = self.backbone.device
        self.mean = self.token_maps.float().mean((0, 2, 3)).to(device)
        self.deviation = self.token_maps.float().std((0, 2, 3)).to(device) + 1e-3

    def features(self, maps: Tensor, boxes: Tensor) -> Tensor:
        """[B, n, F] of tokens [B, d, h, w] and boxes [B, n, 4] in pixels of the backbone's input."""
        return self.aligned((maps - self.mean[:, None, None]) / self.deviation[:, None, None], boxes, CELLS).flatten(2)

    def aligned(self, maps: Tensor, boxes: Tensor, cells: int) -> Tensor:
        """RoIAlign of boxes [B, n, 4] of tokens [B, d, h, w]: [B, n, d, cells, cells]."""
        image = torch.arange(len(boxes), device=boxes.device).repeat_interleave(boxes.shape[1])
        rows = torch.cat([image[:, None].to(boxes.dtype), boxes.flatten(0, 1)], 1)
        ratio = maps.shape[-1] / self.backbone.image_size
        found = roi_align(maps, rows.to(maps.dtype), cells, ratio, sampling_ratio=2, aligned=True)
        return found.unflatten(0, boxes.shape[:2])

    def class_logits(self, features: Tensor, text: Tensor, learning: bool = False) -> Tensor:
        """(3) before the softmax: [..., C + 1] of features [..., F] and words [C, e], background last."""
        embeddings = F.normalize(self.student(features, learning), dim=-1)
        return embeddings @ torch.cat([text, self.background]).T / (self.config.temperature * self.temperature)

    def region_cosines(self, maps: Tensor, boxes: Tensor) -> Tensor:
        """(4) before the softmax, times its temperature: [B, n, C + 1] of what the tower itself says of boxes [B, n, 4]."""
        pooled = self.joint(self.aligned(maps, boxes, POOLED).mean((3, 4)))
        return F.normalize(pooled, dim=-1) @ torch.cat([self.text, self.background]).T

    @torch.no_grad()
    def detect(self, batch: Batch) -> list[Detections]:
        found, maps = self.tested.find(batch.images), self.maps_of(batch.images)
        p = self.class_logits(self.features(maps, found.boxes), self.text).softmax(-1)
        q = (self.region_cosines(maps, found.boxes) / self.config.tau).softmax(-1)
        scores = ensembled(p, q, self.is_new, self.config.base_share, self.config.new_share)[..., :-1]
        scores = scores * found.objectness[..., None] ** self.config.objectness
        return self.named(found.boxes, scores, found.there)

    @torch.no_grad()
    def teacher_scores(self, batch: Batch, boxes: Sequence[Tensor]) -> list[Tensor]:
        """Cosines [n, C] with the words of what the tower says of these boxes: it is its own teacher."""
        found = self.region_cosines(self.maps_of(batch.images), side_by_side(boxes))[..., :-1]
        return [own[: len(box)] for own, box in zip(found, boxes, strict=True)]

    # --- learning ----------------------------------------------------------------------------------------------------

    def stages(self, task) -> list:
        """The tower, if it learns; then the head."""
        images = self.learns_from(task)
        return [images, images] if self.pretrains else [images]

    @property
    def batch_size(self) -> int:
        return self.config.pretrain_batch if self.pretraining else self.config.batch_size

    @property
    def planned_epochs(self) -> int:
        return self.config.pretrain_epochs if self.pretraining else self.config.epochs

    def learning_rate(self, step: int, steps: int) -> float:
        lr = self.config.pretrain_lr if self.pretraining else self.config.lr
        return rate_by_step(step, steps, lr, max(1, steps // 10))

    def loss(self, batch: Batch) -> Tensor:
        if self.pretraining:
            return self.pretraining_loss(batch.index.to(self.backbone.device))
        if self.token_maps is None:
            self.keep_tokens()
        own = self.labelled(batch, self.regions_of(batch))
        maps = self.token_maps[batch.index.cpu()].to(self.backbone.device).float()
        logits = self.class_logits(self.features(maps, own.boxes)[own.there], self.base_text, learning=True)
        return text_loss(logits, own.labels[own.there], 0)


def on_a_grid(positions: Tensor, old: Sequence[int], new: Sequence[int]) -> Tensor:
    """Positions [h w, d] of an `old` grid on a `new` one, bilinear: [1, d, *new]."""
    grid = positions.float().T.unflatten(1, tuple(old))[None]
    return F.interpolate(grid, tuple(new), mode="bilinear", align_corners=False)


def cropped_positions(positions: Tensor, grid: Sequence[int], boxes: Tensor, finer: int) -> Tensor:
    """(1): [B, h w, d] of positions [h w, d] and boxes [B, 4] x0, y0, x1, y1 in cells of the finer grid.

    One sample in the middle of each cell, where a cell of the finer grid lies at its index, as the release has it.
    """
    rows = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], 1)
    fine = on_a_grid(positions, grid, (finer, finer))
    return roi_align(fine, rows, tuple(grid), 1.0, sampling_ratio=1, aligned=False).flatten(2).mT


def random_regions(count: int, side: int, device: torch.device | str) -> Tensor:
    """Boxes [count, 4] in a square of `side`: area uniform, width / height uniform in its logarithm, anywhere in it."""
    area = torch.empty(count, device=device).uniform_(*AREA)
    aspect = torch.empty(count, device=device).uniform_(*(math.log(a) for a in ASPECT)).exp()
    size = torch.stack([(area * aspect).sqrt(), (area / aspect).sqrt()], -1).clamp_max(1) * side
    corner = torch.rand(count, 2, device=device) * (side - size)
    return torch.cat([corner, corner + size], -1)


def focal_contrast(logits: Tensor, alpha: float = 0.5, gamma: float = 1.0) -> Tensor:
    """(2) without its divisor: the sum over all pairs of images and captions, logits [B, B]."""
    own = torch.eye(len(logits), device=logits.device)
    entropy = F.binary_cross_entropy_with_logits(logits, own, reduction="none")
    weights = 2 * torch.where(own == 1, alpha, 1 - alpha)
    return (weights * (1 - (-entropy).exp()) ** gamma * entropy).sum()


def ensembled(p: Tensor, q: Tensor, is_new: Tensor, base: float, new: float) -> Tensor:
    """(5): [..., C + 1] of probabilities p, q [..., C + 1] with background last, and `is_new` [C] bool."""
    scores = torch.cat([geometric(p[..., :-1], q[..., :-1], is_new, base, new), p[..., -1:]], -1)
    return scores / scores.sum(-1, keepdim=True)
