"""FreeSeg: Unified, Universal and Open-Vocabulary Image Segmentation (arXiv:2303.17225, CVPR 2023).

Survey, section 7.2.2. Semantic, instance and panoptic segmentation each had a model of their own, and each its own training. FreeSeg
is one model that is told in words which of them is wanted: the task is a part of every class prompt, and the pixels look at those
prompts before the queries look at the pixels.

    t_c = n(E_T([task words | U | start | V | name . end]))    per task; U, V learned vectors                         (1)
    x <- LN(x) + gamma A(LN(x), LN([t; n(b)]))                 pixels x of (E, M) attend to words; gamma 0.1 at first  (2)
    p = softmax(s [cos(h(z), t_1), ..., cos(h(z), t_C), cos(h(z), b)]), b's entry dropped                             (3)
    q = softmax(s' cos(f(crop), t_c))                           f(crop): the segment cut out, as in ZSSeg             (4)
    P_c = p_c^w q_c^(1-w) for seen classes, p_c^(1-w) q_c^w for the others                                            (5)

First U, V learn from crops of true masks of seen classes, a task at a step: what an image shows of a class for "semantic
segmentation.", an object for "instance segmentation.", objects and grounds for "panoptic segmentation." Then the segmenter learns
from the masks of one task at a step, drawn at random: cross-entropy + 20 focal + 5 dice, after matching. Answers:

    semantic   S_c(x) = sum_q P_c m_q(x), m_q = sigmoid(mask_q)                                                       (6)
    sharp      s_q, c_q = max, argmax of softmax(P / 0.01);  R_q = {x: m_q(x) >= 1/2 and argmax_c S_c(x) = c_q}       (7)
    panoptic   segments with |R_q| >= o |m_q >= 1/2|, things only with s_q >= 1/2; later ones lie above earlier ones,
               and those of one ground are one                                                                         (8)
    instances  things with s_q > 1/2 and |R_q| > o |m_q|, here with mask_q >= 1/2; the largest of a class is left out where the
               others cover more than 0.8 of it; score = s_q times the mean of m_q where it is above 1/2               (9)

The start token stands behind the task in (1), as in the release. What differs from the release, beside what `dense.mask_first`
says: a MaskFormer in place of a Mask2Former, so that (2) has two maps of unlike width, with weights of their own, in place of
four with the same; no dropout in A; masks are enlarged without aligned corners, and the queries that have seen nothing yet are
not taught, where it teaches ten outputs of nine layers. In (9) the release never answers the last class, takes all things for one
class, and leaves the largest out where the others are large, wherever they lie: with two objects, the larger one. Embedded
settings cut squares a quarter larger than the segment; h has hidden width 2 d. The paper tunes prompts at test, its code does
not.

With `tasks` "semantic", semantic segmentation alone is taught, in the prompts too.

Dimensions: B images, N segments, C classes, K words, e joint width, d query width, S image side, R crops, G segments.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.errors import VlmlabError
from vlmlab.methods.dense.detections import Detections
from vlmlab.methods.dense.mask_crops import SHAPES, in_bulk, mask_boxes, mask_embeddings
from vlmlab.methods.dense.mask_first import CosineNames, Named, enlarged
from vlmlab.methods.dense.mask_former import PIXEL_CHANNELS, instance_segments, panoptic_segments, segments, set_loss
from vlmlab.methods.dense.mask_queries import segments_to_pixels
from vlmlab.methods.dense.naming import fused
from vlmlab.methods.dense.pixels import halved
from vlmlab.methods.method import Batch, option
from vlmlab.methods.segmentation.zsseg import prompt_rate
from vlmlab.methods.text_prompt.prompts import Prompts, assemble, placeholders
from vlmlab.registry import register

TASKS = {kind: f"{kind} segmentation." for kind in ("semantic", "instance", "panoptic")}
"""What is asked for -> how the prompts say it."""
SHARP = 0.01  # temperature of the names in (7)
HEADS = 8  # of A
COVERED = 0.8  # of the largest segment of a class, from which the others make it superfluous


@register(
    "freeseg",
    title="FreeSeg: Unified, Universal and Open-Vocabulary Image Segmentation",
    paper="arXiv:2303.17225",
    year=2023,
    section="7.2.2",
    family="segmentation",
    setup="open-vocabulary",
    tasks=("segmentation",),
    learns="a MaskFormer; before it, prompts of classes and tasks",
    needs=("image blocks", "text tokens"),
)
class FreeSeg(CosineNames):
    """One segmenter for three tasks, which are told to it by prompts."""

    @dataclasses.dataclass
    class Config(CosineNames.Config):
        lr: float = option(1.5e-4, "learning rate", 0.0, 10.0)
        weight_decay: float = option(1.5e-4, "weight decay", 0.0, 1.0)
        layers: int = option(9, "decoder layers; each is taught", 1, 12)
        dice_weight: float = option(5.0, "weight of the dice loss of masks", 0.0, 1000.0)
        scale: float = option(100.0, "factor of the segmenter's cosines", 0.0, 1000.0)
        tasks: str = option("all", "what is taught", choices=("all", *TASKS))
        inner: int = option(2048, "width of the attention from pixels to words, a multiple of 8", 8, 8192)
        weight: float = option(0.8, "w: exponent of the segmenter for seen classes, of CLIP for others", 0.0, 1.0)
        ensemble: bool = option(True, "CLIP names segments, too; without it, the segmenter alone does")
        overlap: float = option(0.5, "o: share of a segment that must bear its own name", 0.0, 1.0)
        n_ctx: int = option(16, "learned vectors V before the name", 1, 64)
        task_ctx: int = option(8, "learned vectors U behind the task", 1, 64)
        prompt_steps: int = option(16000, "steps of the prompts", 0, 10**6)
        prompt_lr: float = option(0.02, "learning rate of the prompts", 0.0, 10.0)
        prompt_shots: int = option(64, "crops per class and task that the prompts learn from", 1, 1000)
        shape: str = option("stretched", "how crops become square", choices=SHAPES)
        expand: float = option(1.0, "side of a crop over that of the segment's box", 0.5, 4.0)

    embedded: ClassVar[dict] = CosineNames.embedded | {
        "scale": 20.0,
        "inner": 128,
        "prompt_steps": 100,
        "prompt_shots": 12,
        "shape": "square",
        "expand": 1.25,
    }

    def prepare(self, task) -> None:
        text, config, device = self.backbone.text, self.config, self.backbone.device
        if config.inner % HEADS:
            raise VlmlabError(f"inner={config.inner} is no multiple of {HEADS}, the heads of the attention to words")
        self.context: Tensor
        self.task_context: Tensor
        self.register_buffer("context", 0.02 * torch.randn(config.n_ctx, text.width, device=device))  # V
        # Kaiming's deviation for a slope of 2 and a fan-in of the text width, as in the release.
        deviation = (2 / (1 + 2**2) / text.width) ** 0.5
        self.register_buffer("task_context", deviation * torch.randn(config.task_ctx, text.width, device=device))  # U
        super().prepare(task)
        self.kinds = list(TASKS) if config.tasks == "all" else [config.tasks]
        self.taught = {self.classes[c] for c in self.seen}
        self.ground_classes = list(task.grounds)
        self.grounds = {self.classes[c] for c in task.grounds}
        width, embed = config.width, self.backbone.embed_dim
        self.to_pixels = Interaction(PIXEL_CHANNELS, embed, config.inner)
        self.to_memory = Interaction(width, embed, config.inner)
        self.cosine_head()
        if config.prompt_steps:
            self.learn_prompts(task)
            self.set_words()

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        """Other words for both classifiers; what was learned stays, and classes that were taught are known by their names."""
        super().set_classes(classes, templates)
        self.set_words()

    # --- the words ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def set_words(self) -> None:
        """t_c of every task, unit rows [C, e]."""
        prompts = class_prompts(self.backbone.text, self.classes, len(self.context))
        self.words_of = {
            kind: task_words(self.backbone.text, prompts, told, self.task_context, self.context)
            for kind, told in TASKS.items()
        }
        self.words = self.words_of["semantic"]

    def learn_prompts(self, task) -> None:
        """U and V, by CLIP's cross-entropy on crops of true masks of seen classes."""
        config, text, device = self.config, self.backbone.text, self.backbone.device
        drawing = torch.Generator().manual_seed(task.seed)
        crops = self.true_crops(task.train, drawing)
        learned = [nn.Parameter(part.clone()) for part in (self.task_context, self.context)]
        optimizer = torch.optim.SGD(learned, 1.0, momentum=0.9, weight_decay=1e-3)
        prompts = class_prompts(text, [self.classes[c] for c in self.seen], config.n_ctx)
        for step in range(config.prompt_steps):
            kind = self.kinds[int(torch.randint(len(self.kinds), (), generator=drawing))]
            features, labels = crops[kind]
            if not len(labels):
                continue
            for group in optimizer.param_groups:
                group["lr"] = prompt_rate(step, config.prompt_steps, config.prompt_lr)
            drawn = torch.randint(len(labels), (min(len(labels), config.batch_size),), generator=drawing).to(device)
            words = task_words(text, prompts, TASKS[kind], *learned)
            optimizer.zero_grad()
            F.cross_entropy(self.backbone.logit_scale * features[drawn] @ words.T, labels[drawn]).backward()
            optimizer.step()
        self.task_context, self.context = (part.detach() for part in learned)

    def true_crops(self, pictures, drawing: torch.Generator) -> dict[str, tuple[Tensor, Tensor]]:
        """Task -> (unit embeddings [R, e], places among the seen classes [R]) of at most `prompt_shots` true segments per class."""
        room = {kind: [self.config.prompt_shots] * len(self.seen) for kind in self.kinds}
        order, found = torch.randperm(len(pictures), generator=drawing).tolist(), {}
        for kind in self.kinds:
            labels = [torch.zeros(0, dtype=torch.long, device=self.backbone.device)]
            features = in_bulk(self.encoded, self.true_cuts(pictures, order, kind, room[kind], labels))
            if features is None:
                features = torch.zeros(0, self.backbone.embed_dim)
            found[kind] = features, torch.cat(labels)
        return found

    def true_cuts(
        self, pictures, order: Sequence[int], kind: str, room: list[int], labels: list[Tensor]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(image [1, 3, S, S], true masks [n, S, S]) as long as there is `room` [K] for a seen class; writes to `labels` which
        they are."""
        for i in order:
            if not any(room):
                return
            images, frames = self.framed([pictures.images(i)])
            places, masks, _ = self.true_segments(
                frames[0].truth(pictures.truth(i)).to(images.device), kind, whole=True
            )
            chosen = []
            for n, k in enumerate(places.tolist()):
                if room[k]:
                    room[k] -= 1
                    chosen.append(n)
            if chosen:
                labels.append(places[chosen])
                yield images, masks[chosen].unflatten(1, images.shape[-2:]).bool()

    # --- training ----------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> Tensor:
        kind = self.kinds[int(torch.randint(len(self.kinds), ()))]
        words, total = self.words_of[kind][self.seen], 0.0
        truths = [self.true_segments(truth, kind) for truth in batch.truths]
        for masks, z in self.told(batch.images, self.frozen.of(batch), words):
            total = total + set_loss(
                self.names(z, words).float(), masks.flatten(2).float(), truths,
                self.config.null_weight, self.config.mask_weight, self.config.dice_weight,
            )  # fmt: skip
        return total

    def told(self, images: Tensor, places: Tensor, words: Tensor) -> list[tuple[Tensor, Tensor]]:
        """What the network gives of images and their frozen tokens, once its pixels have looked at the words [K, e] (2)."""
        words = torch.cat([words, F.normalize(self.null, dim=0)[None]])
        return self.network(
            images, places, lambda pixels, memory: (*self.to_pixels([pixels], words), *self.to_memory([memory], words))
        )

    def true_segments(self, truth, kind: str, whole: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """What a task asks for in an image: (places among the seen classes [G], masks [G, P], which pixels count [P]), at half its
        size or, with `whole`, at its own."""
        half = (lambda masks: masks) if whole else halved
        if kind == "semantic":
            labels, masks, counted = segments(half(truth.semantic))
        elif kind == "instance":
            labels, masks, counted = instance_segments(truth, half)
        else:
            labels, masks, counted = panoptic_segments(truth, self.ground_classes, half)
        place = torch.full((max(self.seen) + 1,), -1, device=labels.device)
        place[self.seen] = torch.arange(len(self.seen), device=labels.device)
        return place[labels], masks, counted

    # --- answers -----------------------------------------------------------------------------------------------------

    def encoded(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """What CLIP sees in masks [B, N, S, S] (bool): (unit embeddings [B, N, e], which masks are not empty [B, N])."""
        return mask_embeddings(self.backbone, images, masks, self.config.expand, self.config.shape)

    def propose(self, images: Tensor, kind: str = "semantic") -> tuple[Tensor, Tensor]:
        """(mask logits [B, N, S, S], segments z [B, N, d]) of images [B, 3, S, S], for a task."""
        masks, z = self.told(images, self.read(images), self.words_of[kind])[-1]
        return enlarged(masks, images), z

    def named(self, images: Tensor, kind: str = "semantic") -> Named:
        """As `MaskFirst.named`, for a task."""
        masks, z = self.propose(images, kind)
        every = self.names(z, self.words_of[kind]).float().softmax(-1)  # (3)
        p = every[..., :-1]
        if not self.config.ensemble:
            return Named(masks, every, None, p)
        q = self.clip_names(images, masks, self.words_of[kind])  # (4)
        w = self.config.weight
        of_clip = torch.tensor([1 - w if name in self.taught else w for name in self.classes], device=p.device)
        return Named(masks, every, q, fused(p, q, of_clip))  # (5)

    def logits(self, batch: Batch) -> Tensor:
        found = self.named(batch.images)
        return segments_to_pixels(found.both, found.masks)  # (6)

    @torch.no_grad()
    def panoptic(self, batch: Batch) -> Tensor:
        found = self.named(batch.images, "panoptic")
        return panoptic_map(found.both, found.masks, self.things, self.config.overlap)

    @torch.no_grad()
    def instances(self, batch: Batch) -> list[Detections]:
        found = self.named(batch.images, "instance")
        return [
            thing_masks(p, masks, self.things, self.config.overlap)
            for p, masks in zip(found.both, found.masks, strict=True)
        ]

    @property
    def things(self) -> Tensor:
        """[C] bool: which classes come one by one; a word that is no ground of the task does."""
        return torch.tensor([name not in self.grounds for name in self.classes], device=self.backbone.device)


class Interaction(nn.Module):
    """Maps [B, c, h, w] that have looked at words [K, e] (2).

    The words are normalised again for every map of a call, as in the release.
    """

    def __init__(self, width: int, embed: int, inner: int) -> None:
        super().__init__()
        self.norm, self.norm_words = nn.LayerNorm(width), nn.LayerNorm(embed)
        self.query, self.key, self.value = nn.Linear(width, inner), nn.Linear(embed, inner), nn.Linear(embed, inner)
        self.out = nn.Linear(inner, width)
        self.gamma = nn.Parameter(torch.full((width,), 0.1))
        for layer in (self.query, self.key, self.value, self.out):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, maps: Sequence[Tensor], words: Tensor) -> list[Tensor]:
        words, found = words.to(maps[0].dtype), []
        for x in maps:
            x, size = self.norm(x.flatten(2).transpose(1, 2)), x.shape[-2:]  # [B, h w, c]
            words = self.norm_words(words)
            q = self.query(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)  # [B, heads, h w, c']
            k, v = (
                part(words).unflatten(-1, (HEADS, -1)).transpose(0, 1).expand(len(x), -1, -1, -1)
                for part in (self.key, self.value)
            )
            seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            found.append((x + self.gamma * self.out(seen)).transpose(1, 2).unflatten(2, size))
        return found


def class_prompts(text, classes: Sequence[str], count: int) -> Prompts:
    """The class prompts [start | `count` vectors | name . end] without their vectors."""
    return assemble(text, classes, placeholders(count))


def task_words(text, prompts: Prompts, told: str, task_context: Tensor, context: Tensor) -> Tensor:
    """Unit rows [C, e] of (1): the prompts behind the words `told` of a task and the vectors U, with the vectors V in them."""
    tokens = text.tokenize([told])
    said = int(text.extent(tokens) - text.extent(text.tokenize([""])))
    words = text.embed(tokens[:, text.special : text.special + said])[0]
    prefix = torch.cat([words, task_context.type_as(words), prompts.start, context.type_as(words)])
    return F.normalize(text.forward_shared_prefix(prefix, prompts.rest, prompts.end), dim=-1)


def sharp_names(p: Tensor, masks: Tensor, bound: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(7) of P [..., N, C] and mask logits [..., N, S, S]: (scores [..., N], classes [..., N], R [..., N, S, S], areas [..., N]),
    areas being those where a mask logit is at least `bound`."""
    pixels = torch.einsum("...nc,...nhw->...chw", p, masks.sigmoid()).argmax(-3)
    scores, labels = (p / SHARP).softmax(-1).max(-1)
    whole = masks >= bound
    return scores, labels, whole & (pixels[..., None, :, :] == labels[..., None, None]), whole.sum((-2, -1))


def panoptic_map(p: Tensor, masks: Tensor, things: Tensor, overlap: float) -> Tensor:
    """(8) of P [B, N, C] and mask logits [B, N, S, S]: class and segment of every pixel, int64 [B, S, S, 2], -1 where there is none.

    `things` [C] says which classes come one by one.
    """
    scores, labels, shown, area = sharp_names(p, masks, 0.0)
    own = shown.sum((-2, -1))
    kept = (own > 0) & (own >= overlap * area) & (~things[labels] | (scores >= 0.5))  # [B, N]
    number = torch.arange(1, labels.shape[1] + 1, device=labels.device)
    above = (shown * kept[..., None, None] * number[:, None, None]).amax(
        1
    ) - 1  # [B, S, S]: the last of those that are there
    # A ground is known by the first of its segments.
    alike = (labels[:, :, None] == labels[:, None]) & kept[:, None]  # [B, N, N]
    first = torch.where(things[labels], number - 1, alike.int().argmax(-1))
    at = above.clamp_min(0).flatten(1)
    found = torch.stack([labels.gather(1, at), first.gather(1, at)], -1).unflatten(1, masks.shape[-2:])
    return found.masked_fill((above < 0)[..., None], -1)


def thing_masks(p: Tensor, masks: Tensor, things: Tensor, overlap: float) -> Detections:
    """(9) of P [N, C] and mask logits [N, S, S] of one image."""
    scores, labels, shown, area = sharp_names(p, masks, 0.5)
    own = shown.sum((-2, -1))
    kept = (own > 0) & (own > overlap * area) & things[labels] & (scores > 0.5)
    scores, labels, masks, area = scores[kept], labels[kept], masks[kept], area[kept]
    if not len(scores):
        return Detections.none(masks.device, masks.shape[-2:])
    alike = labels[:, None] == labels
    place = torch.arange(len(area), device=area.device)
    larger = (area[:, None] < area) | ((area[:, None] == area) & (place[:, None] > place))
    others = alike & (place[:, None] != place)
    whole = (masks >= 0.5).flatten(1)
    cover = ((others.float() @ whole.float() > 0) & whole).sum(1)
    left = ~(~(alike & larger).any(1) & (cover > COVERED * area))
    scores, labels, masks = scores[left], labels[left], masks[left]
    inside = (masks > 0).flatten(1)
    sure = (masks.sigmoid().flatten(1) * inside).sum(1) / (inside.sum(1) + 1e-6)
    found = Detections(mask_boxes(masks > 0).to(scores.dtype), scores * sure, labels, masks > 0)
    return found.surest(len(found))
