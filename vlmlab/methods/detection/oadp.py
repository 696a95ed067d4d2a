"""OADP: objects seen whole through a masked token, and distillation of objects, blocks and the whole image.

Wang et al., "Object-Aware Distillation Pyramid for Open-Vocabulary Object Detection", arXiv 2303.05892; code:
LutingWang/OADP, commit d641d28c77.

    teacher of objects   v_r = n(f_y(crop, mask)): the crop is a square of `expand` times the area of the box, moved into the image;
                         f has a patch grid twice as fine, and a second class token y that sees, in every block, itself and the
                         patches (as they are without it), those outside of the box with -100 added to their logits
    teacher of blocks    v_k = n(f(block)) of square tiles of the image, and of the whole image
    L_obj    = 256 mean | z'_r - v_r |                                        all proposals, second head
    L_block  = 128 mean | z_k - v_k | + 8 mean ( Z Z' - V V' )^2 + 16 mean ASL(s z_k . t, base objects in the tile)
    L_global = 0.5 sum ( g - v )^2 + 4 mean ASL(s g . t, base objects in the image),   g = n(W mean of the map)
    L = L_text + L_obj + L_block + L_global
    score = p^(2/3) q^(1/3) on base, p^(1/3) q^(2/3) on new classes                       (ViLD's ensemble)

ASL is the asymmetric loss, with x = sigmoid(logit): -log x of a name that is true, -(1 - m)^4 log m with
m = min(1, 1 - x + 0.05) of any other; the weight (1 - m)^4 has no gradient. The crop is never distorted,
and the token reads the object alone, whatever lies around it; blocks and the whole image teach what regions miss, relations
among parts and what there is beside the proposals.

What differs from the release, beyond `dense.region_learner`: weights do not warm up over the first steps; blocks are tiles of
one scale (`tiles` x `tiles`, half overlapping), where the release goes through a pyramid of scales, because
an embedded image has room for one; logits are cosines times `scale`, in (L_text) and ASL alike, and times `sharpen` at test, as
in its LVIS setting (its COCO setting has learned prompts with a scale and a bias of their own, swaps the two temperatures of the
text head, and lets that head learn at half of the rate). The head on blocks is a head of its own, as there. Named settings for a
small world: `expand` (8 leaves an object of 20 pixels too few patches), `finer` (a finer grid makes an embedded tower several
times as slow), `sharpen` off, and `soften`, as for ViLD.

Dimensions: B images, P proposals an image, K tiles an image, C classes, T = 1 + h*w tokens, e joint width.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from vlmlab.backbones.blocks import finish, project, run_block
from vlmlab.methods.dense.boxes import iou, side_by_side
from vlmlab.methods.dense.crops import CROPS_AT_ONCE
from vlmlab.methods.dense.detections import Detections
from vlmlab.methods.dense.distillation import l1
from vlmlab.methods.dense.fusion import geometric
from vlmlab.methods.dense.region_learner import EMBEDDED, RegionLearner, RegionRecipe, text_loss
from vlmlab.methods.dense.roi_head import TextClassifier
from vlmlab.methods.method import Batch, option
from vlmlab.registry import register

OUTSIDE = -100.0  # added to the logit of a patch that lies outside of the box


@register(
    "oadp",
    title="OADP: Object-Aware Distillation Pyramid for Open-Vocabulary Object Detection",
    paper="arXiv:2303.05892",
    year=2023,
    section="7.1.1",
    family="detection",
    setup="open-vocabulary",
    learns="heads on regions, tiles and the whole image",
    tasks=("detection",),
    needs=("image tokens",),
)
class OADP(RegionLearner):
    """ViLD's ensemble with another teacher and two more levels."""

    @dataclasses.dataclass
    class Config(RegionRecipe):
        scale: float = option(100.0, "factor of the cosines; 0: the backbone's own", 0.0, 1000.0)
        objects: float = option(256.0, "weight of the objects' distance", 0.0, 10000.0)
        blocks: float = option(128.0, "weight of the tiles' distance; 0: no tile is looked at", 0.0, 10000.0)
        block_relations: float = option(8.0, "weight of the relations among tiles", 0.0, 10000.0)
        block_labels: float = option(16.0, "weight of the base names of tiles", 0.0, 10000.0)
        whole: float = option(0.5, "weight of the whole image's distance; 0: it is not looked at", 0.0, 10000.0)
        whole_labels: float = option(4.0, "weight of the base names of the whole image", 0.0, 10000.0)
        expand: float = option(8.0, "area of the crop, in areas of the box", 1.0, 100.0)
        finer: int = option(2, "patches a side, in those of the backbone", 1, 4)
        tiles: int = option(2, "tiles of an image, a side, without the overlapping ones", 1, 16)
        soften: float = option(1.0, "factor on the logits of p in the fusion", 0.0, 1.0)
        sharpen: float = option(1 / 0.7, "factor on all logits at test: 0.01 / 0.007", 0.0, 100.0)
        epochs: int = option(6, "epochs of training", 1, 10000)
        batch_size: int = option(16, "images a step", 1, 4096)
        lr: float = option(0.02, "learning rate after the warm-up", 0.0, 10.0)
        weight_decay: float = option(2.5e-5, "weight decay", 0.0, 1.0)

    embedded: typing.ClassVar[dict] = EMBEDDED | {
        "scale": 0.0,
        "expand": 4.0,
        "finer": 1,
        "soften": 0.3,
        "sharpen": 1.0,
    }

    @property
    def distils(self) -> bool:
        return False  # not CLIP's plain crops

    def prepare(self, task) -> None:
        super().prepare(task)
        images, config, device = self.learns_from(task), self.config, self.backbone.device
        self.text_head, self.object_head = self.head(), self.head()
        self.classifier = TextClassifier(self.text.shape[1], self.scale).to(device)
        if config.blocks:
            self.block_head = self.head()
        if config.whole:
            self.whole_head = nn.Linear(self.regions.maps.shape[1], self.text.shape[1]).to(device)
        side = float(self.backbone.image_size)
        self.tiling = tiles(config.tiles, self.backbone.image_size, device)  # [K, 4]
        self.everything = torch.tensor([[0.0, 0.0, side, side]], device=device)

        def teach(positions: range) -> dict[str, Tensor]:
            pictures, _ = self.framed([images.images(i) for i in positions])
            own = self.regions.boxes[positions.start : positions.stop]
            rows = torch.cat([self.tiling, self.everything])
            return {
                "objects": object_embeddings(self.backbone, pictures, own, config.expand, config.finer),
                "tiles": tile_embeddings(self.backbone, pictures, rows),
            }

        self.taught = self.learned.stored(
            images, f"objects and tiles {config.expand} {config.finer} {config.tiles}", teach
        )

    def loss(self, batch: Batch) -> Tensor:
        config, regions = self.config, self.regions_of(batch)
        index = batch.index.to(regions.maps.device)
        own = self.labelled(batch, regions)
        embeddings = self.text_head(self.features(regions.maps, own.boxes)[own.there], learning=True)
        loss = text_loss(self.classifier(embeddings, self.base_text), own.labels[own.there], 0)
        students = self.object_head(self.features(regions.maps, regions.boxes), learning=True)
        width = students.shape[-1]
        loss = loss + config.objects / width * l1(students, self.taught["objects"][index], regions.there)
        shown = own.boxes, own.labels, own.overlap > 0.99  # the granted objects themselves
        if config.blocks:
            tiling = self.tiling.expand(len(index), -1, -1)
            z = F.normalize(self.block_head(self.features(regions.maps, tiling), learning=True), dim=-1)
            named = self.named_in(tiling, *shown)
            loss = loss + self.level(
                z.flatten(0, 1), self.taught["tiles"][index, :-1].flatten(0, 1), named.flatten(0, 1)
            )
        if config.whole:
            g = F.normalize(self.whole_head(regions.maps.mean((2, 3))), dim=-1)
            loss = loss + config.whole * F.mse_loss(g, self.taught["tiles"][index, -1], reduction="sum")
            named = self.named_in(self.everything.expand(len(index), 1, 4), *shown)[:, 0]
            loss = loss + config.whole_labels * self.named_loss(g, named)
        return loss

    def level(self, students: Tensor, teachers: Tensor, named: Tensor) -> Tensor:
        """L_block of unit rows [n, e] and the base names [n, C_base] bool of the tiles."""
        config = self.config
        distance = config.blocks * F.l1_loss(students, teachers)
        relations = config.block_relations * F.mse_loss(students @ students.T, teachers @ teachers.T)
        return distance + relations + config.block_labels * self.named_loss(students, named)

    def named_loss(self, students: Tensor, named: Tensor) -> Tensor:
        """ASL of unit rows [n, e] and base names [n, C_base] bool. The mean counts new classes, too, whose logit is -inf and whose
        loss is 0."""
        probabilities = (self.scale * students @ self.base_text.T).sigmoid()
        return asymmetric(probabilities, named) * len(self.base) / (len(self.base) + self.unnamed)

    def named_in(self, tiling: Tensor, boxes: Tensor, labels: Tensor, objects: Tensor) -> Tensor:
        """Which base classes [B, K, C_base] have an object that overlaps a tile [B, K, 4]."""
        meets = (iou(tiling, boxes) > 0) & (objects & (labels < len(self.base)))[:, None]  # [B, K, n]
        kinds = F.one_hot(labels.clamp_max(len(self.base)), len(self.base) + 1)[..., :-1].to(boxes.dtype)
        return (meets.to(boxes.dtype) @ kinds) > 0

    @torch.no_grad()
    def detect(self, batch: Batch) -> list[Detections]:
        found = self.tested.find(batch.images)
        return self.named(found.boxes, self.scores(self.features(found.maps, found.boxes)), found.there)

    def scores(self, features: Tensor) -> Tensor:
        """[..., C] of the features of regions [..., F]: the fusion of both heads."""
        sharpen = self.config.sharpen
        p = (sharpen * self.config.soften * self.classifier(self.text_head(features), self.text)).softmax(-1)[..., :-1]
        q = (sharpen * self.scale * F.normalize(self.object_head(features), dim=-1) @ self.text.T).softmax(-1)
        return geometric(p, q, self.is_new)

    @torch.no_grad()
    def teacher_scores(self, batch: Batch, boxes: Sequence[Tensor]) -> list[Tensor]:
        """Cosines [n, C] with the words of what the object token says of these boxes: it is the teacher, not a plain crop."""
        found = object_embeddings(
            self.backbone, batch.images, side_by_side(boxes), self.config.expand, self.config.finer
        )
        return [own[: len(box)] @ self.text.T for own, box in zip(found, boxes, strict=True)]


def tiles(count: int, side: int, device: torch.device | str = "cpu") -> Tensor:
    """Square tiles [K, 4] of an image of `side` pixels: `count` a side, and those half a tile further."""
    size = side / count
    corner = torch.arange(2 * count - 1, device=device) * size / 2
    y, x = torch.meshgrid(corner, corner, indexing="ij")
    place = torch.stack([x, y], -1).flatten(0, 1)
    return torch.cat([place, place + size], -1)


def roomy(boxes: Tensor, expand: float, side: float) -> Tensor:
    """Squares [R, 4] of `expand` times the area of boxes [R, 4] around the same centres, moved into an image of `side` pixels; one
    that is larger than the image stays where it is."""
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    length = (size.prod(-1, keepdim=True) * expand).sqrt()
    corner = centre - length / 2
    inside = torch.minimum(corner.clamp_min(0), side - length)
    corner = torch.where(length <= side, inside, corner)
    return torch.cat([corner, corner + length], -1)


def outside(boxes: Tensor, crops: Tensor, grid: tuple[int, int]) -> Tensor:
    """Which patches [R, h, w] of crops [R, 4] have their upper left corner outside of boxes [R, 4]: bool."""
    length = (crops[:, 2:] - crops[:, :2]).clamp_min(1e-6)  # [R, 2]
    low, high = (boxes[:, :2] - crops[:, :2]) / length, (boxes[:, 2:] - crops[:, :2]) / length
    x, y = (torch.arange(n, device=boxes.device) / n for n in (grid[1], grid[0]))
    across = (low[:, :1] <= x) & (x <= high[:, :1])  # [R, w]
    down = (low[:, 1:] <= y) & (y <= high[:, 1:])
    return ~(down[:, :, None] & across[:, None, :])


def object_tokens(tower, images: Tensor, hidden: Tensor, finer: int) -> Tensor:
    """Embeddings [R, e] of the object token in crops [R, 3, S, S]; `hidden` [R, h, w] bool are the patches that it must not see.

    The patch convolution moves 1/`finer` of a patch, with positions interpolated to the finer grid.
    """
    visual, (step, padding) = tower.visual, _steps(tower, finer)
    x = F.conv2d(images, visual.conv1.weight, visual.conv1.bias, stride=step, padding=padding)
    grid = x.shape[-2:]
    x = x.flatten(2).transpose(1, 2)
    x = visual.ln_pre(tower.placed(x, tuple(grid)))
    y = x[:, :1]
    bias = torch.cat([OUTSIDE * hidden.flatten(1), hidden.new_zeros(len(x), 1)], 1).to(x.dtype)[
        :, None, None
    ]  # [R, 1, 1, T]
    for block in visual.transformer.resblocks:
        seen = block.ln_1(torch.cat([x[:, 1:], y], 1))
        keys, values = project(block, seen, "kv")
        (query,) = project(block, seen[:, -1:], "q")
        y = finish(block, y, F.scaled_dot_product_attention(query, keys, values, attn_mask=bias))
        x = run_block(block, x)
    return tower.joint(y)[:, 0].float()


def finer_grid(tower, side: int, finer: int) -> tuple[int, int]:
    """Patches (h, w) of an image of `side` pixels in `object_tokens`."""
    step, padding = _steps(tower, finer)
    count = (side + 2 * padding - tower.stride[0]) // step + 1
    return count, count


def _steps(tower, finer: int) -> tuple[int, int]:
    """Stride and padding of the patch convolution."""
    patch = tower.stride[0]
    return patch // finer, (patch - 1) // 2 if finer > 1 else 0


@torch.no_grad()
def object_embeddings(backbone, images: Tensor, boxes: Tensor, expand: float, finer: int) -> Tensor:
    """Unit embeddings [B, P, e] of boxes [B, P, 4] of normalised images [B, 3, S, S] by the object token."""
    side = images.shape[-1]
    image = torch.arange(len(images), device=images.device).repeat_interleave(boxes.shape[1])
    flat = boxes.flatten(0, 1)
    crops = roomy(flat, expand, side)
    hidden = outside(flat, crops, finer_grid(backbone.image, side, finer))
    rows = torch.cat([image[:, None].to(images.dtype), crops], 1)
    found = [
        object_tokens(backbone.image, roi_align(images, own, side, 1.0, sampling_ratio=1, aligned=True), mask, finer)
        for own, mask in zip(rows.split(CROPS_AT_ONCE), hidden.split(CROPS_AT_ONCE), strict=True)
    ]
    return F.normalize(torch.cat(found), dim=-1).unflatten(0, boxes.shape[:2])


@torch.no_grad()
def tile_embeddings(backbone, images: Tensor, tiling: Tensor) -> Tensor:
    """Unit embeddings [B, K, e] of the same tiles [K, 4] of every image."""
    image = torch.arange(len(images), device=images.device).repeat_interleave(len(tiling))
    rows = torch.cat([image[:, None].to(images.dtype), tiling.repeat(len(images), 1)], 1)
    side = images.shape[-1]
    found = [
        backbone.encode_image(roi_align(images, own, side, 1.0, sampling_ratio=1, aligned=True))
        for own in rows.split(CROPS_AT_ONCE)
    ]
    return F.normalize(torch.cat(found), dim=-1).unflatten(0, (len(images), len(tiling)))


def asymmetric(x: Tensor, named: Tensor, negative: float = 4.0, positive: float = 0.0, clip: float = 0.05) -> Tensor:
    """The asymmetric loss of probabilities x [n, C] and names [n, C] bool, mean over all entries; its weights have no gradient.

    -w log(x) where a name is true, -w log(min(1, 1 - x + clip)) where it is not; w = (1 - p)^gamma of the entry's p.
    """
    rest = (1 - x + clip).clamp_max(1)
    logs = torch.where(named, x.clamp_min(1e-8).log(), rest.clamp_min(1e-8).log())
    with torch.no_grad():
        p = torch.where(named, x, rest)
        weights = (1 - p).pow(torch.where(named, positive, negative))
    return -(weights * logs).mean()
