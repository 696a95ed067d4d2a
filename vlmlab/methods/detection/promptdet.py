"""PromptDet: two prompt vectors learned on regions, and self-training on images that the web gives for a name.

Feng et al., "PromptDet: Towards Open-vocabulary Detection using Uncurated Images", arXiv 2203.16513; code: fcjian/PromptDet
and fcjian/RPL.

Regional prompt learning. CLIP's words fit whole photographs; two vectors around the name make them fit regions:

    t_c = n(E_T([v1] name_c [v2] description_c .))          loss: CE of the crop of a base object, its box 3 times as large  (1)

Detector. Every class answers for itself, and nothing is background:

    l_rc = s cos(z_r, t_c) + b        s, b learned, from `factor` and -4.595 (a prior of 0.01)                              (2)
    L = 1/R sum_r sum_c BCE(l_rc, y_rc)       columns of base classes alone                                                 (3)

Self-training. For every new name the images of the web nearest to t_c are retrieved; of such an image only c is known:

    r* = argmax over the first 20 proposals of l_rc; asked at two scales of the image, and the higher score wins             (4)
    L_web = sum over the two scales of 1/R sum over r that meet r*, sum_c BCE(l_rc, [c])       all columns; the others       (5)
            are left out: what else an uncurated image shows is not known

The last epochs minimise L + L_web, where the detector of the moment labels for itself.

What differs from the releases: see `dense.region_learner`. Each of the three stages has its own schedule (there, self-training
resumes the detector's at half). (1) learns from base objects alone, at most `crops` of a class; there, retrieved images of
base names join in a second round. Its crops are encoded once, not cropped and flipped at random, and a step of (1) holds those of
a batch of images, not 32. The web is MicroWorld's generator (`datasets.web`), not LAION-400M: classes that it cannot
draw are not found in it, and their images are of other things. The second scale is the image made `small` times as large on a grey
canvas, since the proposer takes one size. Descriptions are the first visual feature that data/descriptions has of a class; one that
has none is prompted without. Embedded crops are 1.2 times their box: an object takes a third of a scene of 64 pixels, and three
times its box would be the scene. `prompt` = "manual" takes the task's templates instead of (1), for comparison.

Dimensions: N images, B of them at once, R regions, P proposals of an image, C classes, d width of the text tower, L tokens,
e joint width, S side, W web images.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import typing
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.datasets.descriptions import load_descriptions
from vlmlab.datasets.web import web
from vlmlab.errors import VlmlabError
from vlmlab.methods.dense.boxes import iou
from vlmlab.methods.dense.crops import crop_embeddings
from vlmlab.methods.dense.detections import Detections
from vlmlab.methods.dense.pseudo_labels import as_labels
from vlmlab.methods.dense.region_learner import EMBEDDED, RegionLearner, RegionRecipe
from vlmlab.methods.dense.regions import Regions
from vlmlab.methods.method import Batch, option
from vlmlab.methods.templates import spoken
from vlmlab.methods.text_prompt.prompts import random_vectors
from vlmlab.registry import register

PRIOR = -math.log((1 - 0.01) / 0.01)
"""The bias b at first: every class has a probability of 0.01."""
FIRST = 20  # proposals that may be an image's pseudo box
PROMPTS, DETECTOR, SELF = range(3)


@register(
    "promptdet",
    title="PromptDet: Towards Open-vocabulary Detection using Uncurated Images",
    paper="arXiv:2203.16513",
    year=2022,
    section="7.1.2",
    family="detection",
    setup="open-vocabulary",
    learns="two prompt vectors, a head on regions",
    tasks=("detection",),
    needs=("text tokens",),
)
class PromptDet(RegionLearner):
    """Regional prompts, a sigmoid detector, and self-training on retrieved images."""

    @dataclasses.dataclass
    class Config(RegionRecipe):
        prompt: str = option("learned", "words of the classes", choices=("learned", "manual"))
        prompt_epochs: int = option(6, "epochs of the prompt vectors", 1, 1000)
        prompt_optimizer: str = option("sgd", "optimiser of the prompt vectors", choices=("sgd", "adamw"))
        prompt_lr: float = option(2e-3, "learning rate of the prompt vectors", 0.0, 10.0)
        larger: float = option(3.0, "how much larger than its box the crop of (1) is", 1.0, 10.0)
        crops: int = option(200, "crops of a base class that prompts learn from, at most", 1, 100000)
        factor: float = option(1.0, "s of (2) at first", 0.0, 1000.0)
        epochs: int = option(6, "epochs of the detector on base boxes", 1, 10000)
        self_epochs: int = option(6, "epochs with self-training behind them; 0: none", 0, 10000)
        retrieved: int = option(300, "web images of a new class", 1, 100000)
        pool: int = option(20000, "images that the web has", 1, 10**6)
        small: float = option(0.6, "size of the second scale", 0.1, 1.0)
        batch_size: int = option(16, "images a step", 1, 4096)
        lr: float = option(0.02, "learning rate after the warm-up", 0.0, 10.0)
        weight_decay: float = option(1e-4, "weight decay", 0.0, 1.0)

    embedded: typing.ClassVar[dict] = EMBEDDED | {
        "prompt_epochs": 3,
        "prompt_optimizer": "adamw",
        "prompt_lr": 0.01,
        "larger": 1.2,
        "factor": 20.0,
        "epochs": 5,
        "self_epochs": 4,
        "retrieved": 16,
        "pool": 900,
    }

    def prepare(self, task) -> None:
        self.table = _descriptions(task)
        super().prepare(task)
        device = self.backbone.device
        if self.config.prompt == "learned":
            noise = torch.Generator().manual_seed(task.seed)
            self.vectors = nn.Parameter(random_vectors(2, self.backbone.text.width, generator=noise).to(device))
            self.asked = None
            self.base_tokens = self.tokens_of(self.base_names)
            self.crops, self.crop_labels, self.crop_images = self.collect(self.learns_from(task), noise)
        self.student = self.head()
        self.factor = nn.Parameter(torch.tensor(self.config.factor, device=device))
        self.bias = nn.Parameter(torch.tensor(PRIOR, device=device))
        self.new = list(task.new)
        self.found: tuple[Regions, Regions, Tensor] | None = None
        self.web = web(self.config.pool, self.backbone.image_size, task.seed) if self.retrieves else None

    @classmethod
    def needs(cls, config) -> tuple[str, ...]:
        return cls.info.needs if config.prompt == "learned" else ()

    @property
    def distils(self) -> bool:
        return False

    @property
    def retrieves(self) -> bool:
        """Whether there is self-training."""
        return self.config.self_epochs > 0 and len(self.base) < len(self.classes)

    # --- words -------------------------------------------------------------------------------------------------------

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        super().set_classes(classes, templates)
        if self.config.prompt == "learned":
            self.tokens, self.asked = self.tokens_of(classes), None

    def tokens_of(self, classes: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Of the prompts "X name X description.": embeddings [C, L, d], where the two vectors belong [C, 2], the end [C].

        Raises `VlmlabError` if a prompt does not fit into the text tower.
        """
        text, names = self.backbone.text, spoken(classes)
        prompts = [f"X {name} X {self.table.get(name, '')}".rstrip() + "." for name in names]
        text.check_names(prompts, "{}")
        tokens = text.tokenize(prompts)
        end = text.end_of_text(tokens)
        # As many tokens stand before the second X as a sentence without it has, but for its end token.
        spoken_alone = text.tokenize([f"X {name}" for name in names])
        before = text.special + text.extent(spoken_alone) - text.extent(text.tokenize([""]))
        places = torch.stack([torch.full_like(before, text.special), before], 1)
        return text.embed(tokens[:, : int(end.max()) + 1]), places, end

    def encoded(self, tokens: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """(1): unit words [C, e] with the vectors as they are."""
        embeddings, places, end = tokens
        row = torch.arange(len(embeddings), device=embeddings.device)[:, None]
        embeddings = embeddings.index_put((row, places), self.vectors.to(embeddings.dtype).expand(len(row), -1, -1))
        return F.normalize(self.backbone.text.forward(embeddings, end).float(), dim=-1)

    @property
    def text(self) -> Tensor:
        """Unit words [C, e] of the classes: (1), or those of the templates."""
        if "vectors" not in self._parameters:
            return self.written
        if self.asked is None:
            with torch.no_grad():
                self.asked = self.encoded(self.tokens)
        return self.asked

    @text.setter
    def text(self, words: Tensor) -> None:
        self.written = words

    def load_state_dict(self, state, strict: bool = True, assign: bool = False):
        self.asked = None
        return super().load_state_dict(state, strict, assign)

    def collect(self, images, noise: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Crops of (1): embeddings [n, e], labels [n] among base classes, and the image [n] that each is of."""
        device, bank, larger = self.backbone.device, self.learned, self.config.larger
        known = as_labels([frame.truth(images.truth(i)) for i, frame in enumerate(self.frames_of)], device)
        digest = hashlib.sha256(known.boxes.cpu().numpy().tobytes()).hexdigest()[:16]

        def compute(positions: range) -> dict[str, Tensor]:
            pixels, _ = self.framed([images.images(i) for i in positions])
            own = known.boxes[positions.start : positions.stop]
            return {"embeddings": crop_embeddings(self.backbone, pixels, own, [larger], bank.shape)}

        crops = bank.stored(images, f"objects {digest} {larger} {bank.shape}", compute)["embeddings"]
        place = torch.full((len(self.classes),), -1, device=device)
        place[self.base] = torch.arange(len(self.base), device=device)
        image, slot = known.there.nonzero(as_tuple=True)
        labels = place[known.labels[image, slot]]
        order = torch.rand(len(labels), generator=noise).to(device).argsort()
        order = order[labels[order].argsort(stable=True)]  # class by class, each in a random order
        counts = labels.bincount(minlength=len(self.base))
        rank = torch.arange(len(order), device=device) - (counts.cumsum(0) - counts)[labels[order]]
        taken = order[rank < self.config.crops].sort().values
        return crops[image[taken], slot[taken]], labels[taken], image[taken]

    # --- the web -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def search(self) -> tuple[Regions, Regions, Tensor]:
        """Regions of the retrieved images at both scales, and the class [W] that each was retrieved for."""
        features = F.normalize(self.encode(self.web), dim=-1)
        similar = self.text[self.new] @ features.T  # [C_n, pool]
        index = similar.topk(min(self.config.retrieved, similar.shape[1]), 1).indices
        labels = torch.tensor(self.new, device=index.device)[:, None].expand_as(index).flatten()
        chosen = self.web.subset(index.flatten().cpu())
        whole, small = [], []
        for images in self.in_turn(chosen):
            whole.append(self.learned.find(images))
            small.append(self.learned.find(self.smaller(images)))
        return _joined(whole), _joined(small), labels

    def smaller(self, images: Tensor) -> Tensor:
        """Images [B, 3, S, S] at the second scale, in the upper left corner of a grey canvas of the same size."""
        side = images.shape[-1]
        reduced = F.interpolate(images, size=(self.reduced, self.reduced), mode="bilinear", antialias=True)
        return F.pad(reduced, (0, side - self.reduced, 0, side - self.reduced))

    @property
    def reduced(self) -> int:
        """Side of the second scale in pixels."""
        return max(8, round(self.config.small * self.backbone.image_size))

    # --- learning ----------------------------------------------------------------------------------------------------

    def stages(self, task) -> list:
        """Prompts, detector, self-training: those that the settings ask for."""
        return [self.learns_from(task)] * len(self._turns)

    @property
    def _turns(self) -> list[int]:
        turns = [PROMPTS] if self.config.prompt == "learned" else []
        return [*turns, DETECTOR, SELF] if self.retrieves else [*turns, DETECTOR]

    @property
    def turn(self) -> int:
        """Which of PROMPTS, DETECTOR and SELF learns."""
        return self._turns[self.stage]

    @property
    def planned_epochs(self) -> int:
        config = self.config
        return {PROMPTS: config.prompt_epochs, DETECTOR: config.epochs, SELF: config.self_epochs}[self.turn]

    def optimizer(self, steps: int):
        if self.turn != PROMPTS:
            return super().optimizer(steps)
        config = self.config
        kind = torch.optim.SGD if config.prompt_optimizer == "sgd" else torch.optim.AdamW
        optimizer = kind([self.vectors], 1.0, weight_decay=0.0)
        batches = max(1, steps // config.prompt_epochs)

        def rate(step: int) -> float:
            return config.prompt_lr / 2 * (1 + math.cos(math.pi * (step // batches) / config.prompt_epochs))

        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, rate)

    def loss(self, batch: Batch) -> Tensor:
        if self.turn == PROMPTS:
            self.asked = None  # the step that follows changes the vectors
            return self.prompt_loss(batch.index.to(self.crops.device))
        regions = self.regions_of(batch)
        own = self.labelled(batch, regions)
        logits = self.logits_of(self.student(self.features(regions.maps, own.boxes)[own.there], learning=True))
        labels = F.pad(self.base, (0, 1), value=len(self.classes))[own.labels[own.there]]
        total = sigmoid_loss(logits, labels, ~self.is_new)
        return total + self.web_loss(len(batch.index)) if self.turn == SELF else total

    def prompt_loss(self, index: Tensor) -> Tensor:
        """Cross-entropy of (1) over the crops of the images at `index` [B]; 0 if they have none."""
        own = torch.isin(self.crop_images, index)
        logits = self.backbone.logit_scale * self.crops[own] @ self.encoded(self.base_tokens).T
        return F.cross_entropy(logits, self.crop_labels[own], reduction="sum") / own.sum().clamp_min(1)

    def web_loss(self, count: int) -> Tensor:
        """(5) of `count` retrieved images, drawn at random."""
        if self.found is None:
            self.found = self.search()
        whole, small, labels = self.found
        chosen = torch.randint(len(labels), (count,)).to(labels.device)
        views, label = [whole.at(chosen), small.at(chosen)], labels[chosen]
        with torch.no_grad():
            boxes, scores = zip(*(self.best(view, label) for view in views), strict=True)
        ratio = self.reduced / self.backbone.image_size
        first = (scores[0] > scores[1])[:, None]
        box = torch.where(first, boxes[0], boxes[1] / ratio)  # in pixels of the whole image
        return self.met_loss(views[0], box, label) + self.met_loss(views[1], box * ratio, label)

    def best(self, regions: Regions, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(4): box [B, 4] and score [B] of the proposal that fits the known class [B] best."""
        boxes, there = regions.boxes[:, :FIRST], regions.there[:, :FIRST]
        logits = self.logits_of(self.student(self.features(regions.maps, boxes)))  # [B, P, C]
        scores = logits.gather(2, labels[:, None, None].expand(-1, logits.shape[1], 1))[..., 0]
        score, which = scores.masked_fill(~there, -torch.inf).max(1)
        return boxes[torch.arange(len(boxes), device=boxes.device), which], score

    def met_loss(self, regions: Regions, box: Tensor, labels: Tensor) -> Tensor:
        """(5) at one scale: the pseudo box [B, 4] of class `labels` [B] and the proposals that meet it by 0.5 or more."""
        boxes = torch.cat([regions.boxes, box[:, None]], 1)
        there = torch.cat([regions.there, torch.ones_like(regions.there[:, :1])], 1)
        met = there & (iou(boxes, box[:, None])[..., 0] >= 0.5)
        met[:, -1] = True
        logits = self.logits_of(self.student(self.features(regions.maps, boxes)[met], learning=True))
        every = torch.ones(len(self.classes), dtype=torch.bool, device=box.device)
        return sigmoid_loss(logits, labels[:, None].expand_as(met)[met], every, int(there.sum()))

    def logits_of(self, embeddings: Tensor) -> Tensor:
        """(2): [..., C] of embeddings [..., e]."""
        return self.factor * F.normalize(embeddings, dim=-1) @ self.text.T + self.bias

    @torch.no_grad()
    def detect(self, batch: Batch) -> list[Detections]:
        found = self.tested.find(batch.images)
        scores = self.logits_of(self.student(self.features(found.maps, found.boxes))).sigmoid()
        return self.named(found.boxes, scores, found.there)


def sigmoid_loss(logits: Tensor, labels: Tensor, columns: Tensor, count: int | None = None) -> Tensor:
    """(3): the sum of binary cross-entropies over R regions and the `columns` [C] bool, over `count` (R if None).

    Args:
        logits: [R, C]. labels: [R] in 0 to C; C is no class.
    """
    targets = F.one_hot(labels, logits.shape[1] + 1)[:, :-1].to(logits.dtype)
    losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none") * columns
    return losses.sum() / max(1, len(labels) if count is None else count)


def _joined(parts: Sequence[Regions]) -> Regions:
    """Regions of several groups of images as one."""
    names = ("maps", "boxes", "objectness", "there")
    return Regions(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def _descriptions(task) -> dict[str, str]:
    """A phrase for every class that data/descriptions has one of."""
    try:
        table = load_descriptions(task.dataset.name, "descriptors", task.classes)
    except VlmlabError:  # nobody has described these classes
        return {}
    return {name: f"which has {table[name][0]}" for name in spoken(task.classes) if table.get(name)}
