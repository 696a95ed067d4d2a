"""BARON: a bag of neighbouring regions reads like a sentence, and is held against CLIP's view of the place.

Wu et al., "Aligning Bag of Regions for Open-Vocabulary Object Detection", arXiv 2302.13996; code: wusize/ovdet, commit d74a20c.

    pseudo-words  w_r = head(RoIAlign(map, r))                          [W, d], in the token space of the text tower
    one region    z_r = f_T([start] w_r [end]),  L_cls = CE( s [cos(z_r, t_1), ..., cos(z_r, t_C), cos(z_r, b)], y_r )
    a bag         boxes of one size beside r, in a 3 x 3 neighbourhood that overlaps a little; each direction with a
                  probability that falls with the box's extent in it; words of all its boxes, in random order, plus a position:
                  u = n( f_T([start] w_1 + pos_1, ..., w_k + pos_k [end]) ),   y = n( f_I(crop that spans the bag) )
    L_bag    = 1/2 CE(30 U Y', same) + 1/2 CE(30 Y U', same)            over the bags of a batch and of a queue
    L_single = the same at 50 of a region's mean word token and CLIP's mean patch token under its box
    L = L_cls + 1.0 L_bag + 0.1 L_single

pos = MLP(sines and cosines of the box in its bag). Half of the words are left out at random in training. The text tower is
frozen, and gradients pass through it to the words. Other orders of the same bag are no negatives, and neither is what the queue
holds of the same image.

The middles of bags are granted objects and the best proposals (objectness above 0.85, area above a hundredth of the image, no
side four times the other), none on another (IoU at most 0.1); an image that has none of these gets the best one. L_cls is a mean
over the regions, in which background counts 0.7.

What differs from the release, beyond `dense.region_learner`. Regions are compared behind the whole text tower; its COCO
setting reads the 12th block, before the last norm and projection. It has no second head and no fusion, as the release on COCO;
on LVIS there is one. Boxes of earlier epochs are not cached. Neighbourhoods around one proposal are drawn independently, where the
release draws again what it has drawn before; those that are equal are one bag. New classes have weight 0 there and are left out
here. On embedded backbones `words`, `bags`, `groups` and `queue` are smaller, and the middles of bags are simply the three best
proposals of an image, so that a step is short and every image has as many.

Dimensions: B images, R regions, W words of a region, d width of the text tower, K bags, k <= 9 boxes of a bag, Q queue,
C classes, e joint width.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import batched_nms, roi_align

from vlmlab.backbones.blocks import finish, project, run_block
from vlmlab.datasets.truth import Truth
from vlmlab.methods.dense.detections import Detections
from vlmlab.methods.dense.pseudo_labels import as_labels
from vlmlab.methods.dense.region_learner import EMBEDDED, RegionLearner, RegionRecipe
from vlmlab.methods.dense.regions import Regions
from vlmlab.methods.dense.roi_head import TextClassifier
from vlmlab.methods.dense.student import weighted_cross_entropy
from vlmlab.methods.method import Batch, option
from vlmlab.registry import register


@register(
    "baron",
    title="BARON: Aligning Bag of Regions for Open-Vocabulary Object Detection",
    paper="arXiv:2302.13996",
    year=2023,
    section="7.1.1",
    family="detection",
    setup="open-vocabulary",
    learns="pseudo-words of regions",
    tasks=("detection",),
    needs=("text tokens", "image tokens"),
)
class BARON(RegionLearner):
    """A head that speaks in words."""

    eats = "images"

    @dataclasses.dataclass
    class Config(RegionRecipe):
        words: int = option(6, "W, pseudo-words of a region", 1, 16)
        word_drop: float = option(0.5, "share of the words that are left out in training", 0.0, 0.9)
        bag: float = option(1.0, "weight of the bags against CLIP's crop of their span", 0.0, 100.0)
        single: float = option(0.1, "weight of single regions against CLIP's patches", 0.0, 100.0)
        bag_scale: float = option(30.0, "factor of the similarities of bags", 0.0, 1000.0)
        single_scale: float = option(50.0, "factor of the similarities of single regions", 0.0, 1000.0)
        bags: int = option(300, "proposals of an image that a bag may be drawn around", 1, 1000)
        granted: bool = option(True, "draw bags around granted objects, too")
        sure: float = option(0.85, "objectness that the middle of a bag must exceed", 0.0, 1.0)
        apart: float = option(
            0.1, "intersection over union above which the less sure of two middles is dropped", 0.0, 1.0
        )
        slim: float = option(0.25, "shorter side over longer one that the middle of a bag must exceed", 0.0, 1.0)
        small: float = option(0.01, "share of the image that the middle of a bag must exceed", 0.0, 1.0)
        groups: int = option(3, "bags around a proposal", 1, 16)
        orders: int = option(2, "orders of the words of a bag", 1, 8)
        alpha: float = option(3.0, "how fast a direction loses probability with the extent in it", 0.0, 10.0)
        probability: float = option(0.3, "of a neighbour, at most", 0.0, 1.0)
        cut_off: float = option(0.3, "share of a neighbour that must lie in the image", 0.0, 1.0)
        interval: float = option(-0.1, "gap between neighbours, in boxes", -0.5, 1.0)
        queue: int = option(1024, "earlier bags and regions that are negatives", 0, 65536)
        background: float = option(0.7, "weight of background in the class loss", 0.0, 10.0)
        scale: float = option(50.0, "factor of the cosines; 0: the backbone's own", 0.0, 1000.0)
        most_detections: int = option(100, "detections of an image", 1, 10000)
        epochs: int = option(27, "epochs over the training images", 1, 10000)
        batch_size: int = option(32, "images a step", 1, 4096)
        lr: float = option(0.04, "learning rate after the warm-up", 0.0, 10.0)
        weight_decay: float = option(2.5e-5, "weight decay", 0.0, 1.0)

    embedded: typing.ClassVar[dict] = EMBEDDED | {
        "words": 2,
        "bags": 3,
        "granted": False,
        "sure": 0.0,
        "apart": 1.0,
        "slim": 0.0,
        "small": 0.0,
        "most_detections": 300,
        "groups": 1,
        "orders": 1,
        "queue": 128,
        "negatives": 6,
        "scale": 0.0,
    }

    def prepare(self, task) -> None:
        super().prepare(task)
        config, device, tower = self.config, self.backbone.device, self.backbone.text
        self.speaker = self.head(config.words * tower.width)
        self.positions = PositionWords(config.words, tower.width).to(device)
        self.classifier = TextClassifier(self.text.shape[1], self.scale).to(device)
        ids = tower.tokenize(["a"])
        ends = tower.embed(ids)[0, [0, int(tower.extent(ids)[0]) - 1]].detach()
        object.__setattr__(self, "ends", ends.float().to(device))  # [2, d]: start and end
        self.of_bags = Queue(config.queue, self.text.shape[1]).to(device)
        self.of_regions = Queue(config.queue, self.text.shape[1]).to(device)

    def spoken(self, words: Tensor, learning: bool = False) -> Tensor:
        """Embeddings [R, e] of regions that are a sentence of their own; `words` [R, W, d]."""
        there = self.heard(words.shape[:2], words.device) if learning else words.new_ones(words.shape[:2]) > 0
        sequences, end, _ = sentences(words, there, self.ends)
        return self.backbone.text.forward_shared_prefix(sequences[0, :1], sequences[:, 1:], end - 1)

    def heard(self, shape, device) -> Tensor:
        """Which words [R, W] are not left out; the first, if all would be."""
        there = torch.rand(*shape, device=device) >= self.config.word_drop
        there[:, 0] |= ~there.any(1)
        return there

    def words_of(self, features: Tensor, learning: bool = False) -> Tensor:
        """[R, W, d] of features of regions [R, F]."""
        return self.speaker(features, learning).unflatten(-1, (self.config.words, -1))

    def loss(self, batch: Batch) -> Tensor:
        config, regions = self.config, self.regions_of(batch)
        own = self.matched(regions.boxes, regions.there, batch.truths)
        words = self.words_of(self.features(regions.maps, own.boxes)[own.there], learning=True)
        logits = self.classifier(self.spoken(words, learning=True), self.base_text)
        labels = own.labels[own.there]
        loss = weighted_cross_entropy(logits, labels, torch.ones_like(logits[:, 0]), config.background)
        if config.bag or config.single:
            centres, there = self.centres(regions, batch.truths)
            image, place = there.nonzero(as_tuple=True)
            if len(image):
                loss = loss + self.bags_of(batch, regions.maps, image, centres[image, place])
        return loss

    def centres(self, regions: Regions, truths: Sequence[Truth]) -> tuple[Tensor, Tensor]:
        """Boxes [B, n, 4] that bags are drawn around, and which of them there are [B, n]: granted objects and proposals."""
        config, most = self.config, self.config.bags
        boxes, scores, there = regions.boxes[:, :most], regions.objectness[:, :most], regions.there[:, :most]
        if config.granted:
            known = as_labels(truths, boxes.device)
            boxes = torch.cat([known.boxes, boxes], 1)
            scores = torch.cat([torch.ones_like(known.weights), scores], 1)
            there = torch.cat([known.there, there], 1)
        side = float(self.backbone.image_size)
        return boxes, promising(boxes, scores, there, side, config.slim, config.small, config.sure, config.apart)

    def bags_of(self, batch: Batch, maps: Tensor, image: Tensor, centres: Tensor) -> Tensor:
        """L_bag + L_single of neighbourhoods of boxes [M, 4], each in the image of the batch at `image` [M]."""
        config, tower, side = self.config, self.backbone.text, self.backbone.image_size
        image, centres = image.repeat_interleave(config.groups), centres.repeat_interleave(config.groups, 0)
        chance = neighbours(centres, side, config.alpha, config.probability, config.cut_off, config.interval)
        chosen = torch.rand_like(chance) < chance  # [K, 9]
        boxes = neighbourhood(centres, config.interval).clamp(0, side)
        spans = spanned(boxes, chosen)
        # Orders of the same boxes around the same proposal are the same bag.
        key = torch.cat([image[:, None].to(spans.dtype), centres, chosen.to(spans.dtype)], 1)
        chosen, boxes, spans, image, key = (
            part.repeat_interleave(config.orders, 0) for part in (chosen, boxes, spans, image, key)
        )
        place = inside(boxes, spans)  # [K, 9, 4] in 0 to 1
        order = torch.rand(chosen.shape, device=chosen.device).argsort(1)
        chosen, boxes, place = (part.gather(1, _like(order, part)) for part in (chosen, boxes, place))
        bag, box = chosen.nonzero(as_tuple=True)  # [n] boxes of all bags
        features = self.features(maps[image[bag]], boxes[bag, box][:, None])[:, 0]
        spoken = self.words_of(features, learning=True) + self.positions(place[bag, box])  # [n, W, d]
        heard = self.heard(spoken.shape[:2], spoken.device)
        width = config.words
        words = spoken.new_zeros(*chosen.shape, width, spoken.shape[-1])
        words[bag, box] = spoken.to(words.dtype)
        there = torch.zeros(*chosen.shape, width, dtype=torch.bool, device=spoken.device)
        there[bag, box] = heard
        sequences, end, slot = sentences(words.flatten(1, 2), there.flatten(1), self.ends)
        texts, tokens = tower.with_word_tokens(sequences, end)
        with torch.no_grad():
            rows = torch.cat([image[:, None].to(spans.dtype), spans], 1)
            crops = roi_align(batch.images.float(), rows, side, 1.0, 2, True)
            views, patches = looked_at(self.backbone.image, crops)
            rows = torch.cat([bag[:, None].to(place.dtype), place[bag, box]], 1)
            patches = roi_align(patches, rows, 1, float(patches.shape[-1]), 2, True)[..., 0, 0]  # [n, e]
        index = batch.index.to(image.device)[image]
        alike = (key[:, None] == key[None]).all(-1)
        texts, views = F.normalize(texts, dim=-1), F.normalize(views, dim=-1)
        loss = config.bag * self.of_bags.contrast(texts, views, alike, index, config.bag_scale)
        if config.single:
            slot = slot.unflatten(1, (-1, width))[bag, box]  # [n, W] places in the sequence
            own = tokens[bag[:, None], slot] * heard[..., None]
            mean = F.normalize(own.sum(1), dim=-1)
            region = torch.cat([image[bag][:, None].to(boxes.dtype), boxes[bag, box]], 1)
            alike = (region[:, None] == region[None]).all(-1)
            single = self.of_regions.contrast(
                mean, F.normalize(patches, dim=-1), alike, index[bag], config.single_scale
            )
            loss = loss + config.single * single
        return loss

    @torch.no_grad()
    def detect(self, batch: Batch) -> list[Detections]:
        found = self.tested.find(batch.images)
        features = self.features(found.maps, found.boxes)
        embeddings = self.spoken(self.words_of(features.flatten(0, 1))).unflatten(0, features.shape[:2])
        scores = self.classifier(embeddings, self.text).softmax(-1)[..., :-1]
        return self.named(found.boxes, scores, found.there)


class Queue(nn.Module):
    """Earlier pairs, and the images that they are of: more negatives than a batch has."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        for name in ("a", "b"):
            self.register_buffer(name, torch.zeros(length, width))
        self.register_buffer("images", torch.full((length,), -1))

    def contrast(self, a: Tensor, b: Tensor, alike: Tensor, images: Tensor, scale: float) -> Tensor:
        """1/2 CE(scale A [B; queue]', same) + 1/2 CE(scale B [A; queue]', same) of unit rows a, b [n, e]; then they join the queue.

        `alike` [n, n] are pairs that show the same, which are no negatives; neither are those of the queue that are of the same
        image, by `images` [n].
        """
        n = len(a)
        same = torch.eye(n, dtype=torch.bool, device=a.device)
        masked = torch.cat([alike & ~same, (images[:, None] == self.images) | (self.images < 0)], 1)
        labels, loss = torch.arange(n, device=a.device), 0.0
        for ours, keys in ((a, torch.cat([b, self.b])), (b, torch.cat([a, self.a]))):
            logits = (scale * ours @ keys.T).masked_fill(masked, -torch.inf)
            loss = loss + 0.5 * F.cross_entropy(logits, labels)
        with torch.no_grad():
            length = len(self.images)
            for name, new in (("a", a.detach()), ("b", b.detach()), ("images", images)):
                queue = getattr(self, name)
                queue.copy_(torch.cat([new.to(queue.dtype), queue])[:length])
        return loss


class PositionWords(nn.Module):
    """Boxes [n, 4] in their bag (0 to 1) -> what is added to their words, [n, W, d]: sines and cosines of centre and size, two layers."""

    def __init__(self, words: int, width: int, features: int = 128, base: float = 1.2) -> None:
        super().__init__()
        self.words, self.features, self.base = words, features, base
        self.pos_proj = nn.Sequential(
            nn.Linear(4 * features, width), nn.LayerNorm(width), nn.Linear(width, words * width)
        )

    def forward(self, boxes: Tensor) -> Tensor:
        centred = torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1)
        steps = torch.arange(self.features, device=boxes.device)
        angles = 2 * math.pi * centred[:, :, None] * self.base ** (steps // 2 - self.features // 4).float()
        waves = torch.stack([angles[..., 0::2].sin(), angles[..., 1::2].cos()], -1).flatten(1)
        return self.pos_proj(waves).unflatten(-1, (self.words, -1))


def sentences(words: Tensor, there: Tensor, ends: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[start] those of the words that are there [end].

    Args:
        words: [N, n, d]. there: [N, n] bool. ends: [2, d], the embeddings of start and end.

    Returns: sequences [N, n + 2, d]; the place [N] of the end; the place [N, n] of each word that is there (of others, the end's).
    """
    count = there.sum(1)
    place = torch.where(there, there.long().cumsum(1), count[:, None] + 1)
    sequences = ends[1].expand(len(words), words.shape[1] + 2, -1).clone()
    sequences[:, 0] = ends[0]
    row, column = there.nonzero(as_tuple=True)
    sequences[row, place[row, column]] = words[row, column].to(sequences.dtype)
    return sequences, count + 1, place


def promising(
    boxes: Tensor, scores: Tensor, there: Tensor, side: float, slim: float, small: float, sure: float, apart: float
) -> Tensor:
    """Which of boxes [B, n, 4] with scores [B, n], of which `there` [B, n] are some, are middles of bags: [B, n] bool.

    A box must have a score above `sure`, cover more than a share `small` of the image of `side` pixels, and have sides whose ratio is
    between `slim` and 1 / `slim`; of two that overlap by more than `apart` the better one is left. Where none is left, the best one.
    """
    size = boxes[..., 2:] - boxes[..., :2]
    ratio, area = size[..., 0] / (size[..., 1] + 1e-12), size.prod(-1) / side**2
    able = (ratio > slim) & (ratio * slim < 1) & (area > small) & (scores > sure) & there
    image, place = able.nonzero(as_tuple=True)
    left = batched_nms(boxes[image, place].float(), scores[image, place].float(), image, apart)
    found = torch.zeros_like(there)
    found[image[left], place[left]] = True
    best = F.one_hot(scores.masked_fill(~there, -torch.inf).argmax(1), scores.shape[1]).bool() & there
    return torch.where(able.any(1, keepdim=True), found, best)


def neighbourhood(boxes: Tensor, interval: float) -> Tensor:
    """The nine boxes [M, 9, 4] of boxes [M, 4], row by row, each `interval` boxes from the next."""
    size = boxes[:, 2:] - boxes[:, :2]
    step = torch.tensor([-1.0, 0, 1], device=boxes.device) * (1 + interval)
    y, x = torch.meshgrid(step, step, indexing="ij")
    moved = torch.stack([x, y], -1).flatten(0, 1) * size[:, None]  # [M, 9, 2]
    return boxes[:, None] + torch.cat([moved, moved], -1)


def neighbours(boxes: Tensor, side: float, alpha: float, most: float, cut_off: float, interval: float) -> Tensor:
    """With which probability each of the nine boxes [M, 9] of boxes [M, 4] joins the bag; the box itself always does."""
    size = (boxes[:, 2:] - boxes[:, :2]).clamp_min(1e-6)
    wide, high = size[:, :1], size[:, 1:]
    across, along = most * (high / wide) ** alpha, most * (wide / high) ** alpha  # [M, 1]
    chances = torch.cat([across, across, along, along], 1)  # left, right, up, down
    free = torch.cat(
        [boxes[:, :1] / wide, (side - boxes[:, 2:3]) / wide, boxes[:, 1:2] / high, (side - boxes[:, 3:]) / high], 1
    )
    chances = (chances * (free > cut_off + interval)).clamp(0, most)
    left, right, up, down = chances.T
    one = torch.ones_like(left)
    found = torch.stack([y * x for y in (up, one, down) for x in (left, one, right)], 1)
    corners = torch.tensor([True, False, True, False, False, False, True, False, True], device=boxes.device)
    return torch.where(corners, found.sqrt(), found)


def spanned(boxes: Tensor, chosen: Tensor) -> Tensor:
    """The smallest box [K, 4] around the chosen [K, 9] of boxes [K, 9, 4]."""
    out = ~chosen[..., None]
    return torch.cat(
        [boxes[..., :2].masked_fill(out, torch.inf).amin(1), boxes[..., 2:].masked_fill(out, -torch.inf).amax(1)], 1
    )


def inside(boxes: Tensor, spans: Tensor) -> Tensor:
    """Boxes [K, 9, 4] in units of the box [K, 4] that spans them."""
    size = (spans[:, 2:] - spans[:, :2]).clamp_min(1e-6)
    corner, scale = (torch.cat([part, part], 1)[:, None] for part in (spans[:, :2], size))
    return (boxes - corner) / scale


def looked_at(tower, crops: Tensor) -> tuple[Tensor, Tensor]:
    """(features [K, e] of crops [K, 3, S, S], features [K, e, h, w] of the single patches) by CLIP's ViT; a patch's own feature is
    its value in the last block, on top of the class token's state."""
    last, x = tower.last_block(crops)
    (values,) = project(last, last.ln_1(x), "v")
    alone = tower.joint(finish(last, x[:, :1].expand_as(x), values))[:, 1:]
    first = torch.zeros(len(x), dtype=torch.long, device=x.device)
    views = tower.joint(run_block(last, x, rows=first))[:, 0]
    return views.float(), alone.transpose(1, 2).unflatten(2, tower.grid(*crops.shape[-2:])).float()


def _like(order: Tensor, part: Tensor) -> Tensor:
    """An order [K, 9] as an index into [K, 9] or [K, 9, 4]."""
    return order if part.dim() == 2 else order[..., None].expand_as(part)
