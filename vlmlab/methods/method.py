"""The interface that every system of the survey stands behind, and the field's training recipe.

A system is one file with one subclass of `Method`. It says what it eats, builds its prompts or caches from a task in
`prepare`, and gives logits. Whatever has a gradient is an `nn.Parameter` of the method and nothing else is, because the
backbone is kept outside of PyTorch's module tree: `method.parameters()` is exactly what the system learns and
`method.state_dict()` exactly what one would save.

Where a system's file names float32 among what differs from its release, it speaks of a CPU: on a GPU the towers are in
bfloat16, and what is learned is in float32 (`learning.fit`).

Dimensions: B batch, C classes, e joint width, S image side, V views, N images.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.datasets.truth import Truth
from vlmlab.errors import KINDS, VlmlabError, unknown
from vlmlab.methods.needs import refuse_backbone

PICTURES_AT_ONCE = 128  # bounds the memory of one pass through an image tower


@dataclasses.dataclass
class Batch:
    """What a system is shown at once.

    images [B, 3, S, S] normalised as the backbone wants ([B, V, 3, S, S] for a system that eats views), or None;
    features [B, e] of the frozen image encoder, not normalised, or None;
    labels [B] class indices ([B, C] of 0 and 1 if multi-label), or None; index [B] positions in the image set;
    cropped: whether the images are random crops;
    tasks [B] the task that each image belongs to, and whose classes its label counts, where a system learns several
    tasks at once (`datasets.multi_task`), or None;
    masks [B, S, S] class index of every pixel, negative where it is not known (see `Truth`), or None;
    truths: per image, what is known of its objects and pixels, in pixels of `images`, for a system that detects or segments,
    or None; captions: a sentence per image, where a system learns from them, or None.
    """

    images: Tensor | None = None
    features: Tensor | None = None
    labels: Tensor | None = None
    index: Tensor | None = None
    cropped: bool = False
    tasks: Tensor | None = None
    masks: Tensor | None = None
    truths: list[Truth] | None = None
    captions: list[str] | None = None

    @property
    def whole(self) -> bool:
        """Whether these are the images of the set as they are, so that what was kept of them holds, by `index`."""
        return self.index is not None and not self.cropped


def option(default: typing.Any, text: str, low: float | None = None, high: float | None = None, choices=()):
    """A field of a Config. Help text, limits and choices are its metadata; sliders and `--set` are built from them."""
    return dataclasses.field(default=default, metadata={"help": text, "low": low, "high": high, "choices": choices})


@dataclasses.dataclass
class Recipe:
    """How CoOp and its descendants train (the Dassl framework); a Config inherits it and states what differs.

    `most_steps` is ours. Embedded settings were chosen on sets of ten to twelve classes; where five times as many images
    and names make an epoch five times and each step several times as long, fewer epochs do (CoOp, too, has fewer on ImageNet).
    """

    epochs: int = option(50, "epochs of training", 1, 10000)
    most_steps: int = option(
        0, "steps at most: epochs that go beyond are left out, but for the first; 0: no limit", 0, 10**9
    )
    batch_size: int = option(32, "training images a step", 1, 4096)
    optimizer: str = option("sgd", "optimiser", choices=("sgd", "adamw"))
    lr: float = option(0.002, "learning rate after the warm-up", 0.0, 10.0)
    momentum: float = option(0.9, "momentum of SGD", 0.0, 1.0)
    weight_decay: float = option(5e-4, "weight decay", 0.0, 1.0)
    eps: float = option(1e-8, "eps of AdamW", 0.0, 1.0)
    warmup_epochs: int = option(1, "first epochs, at the constant warm-up rate", 0, 100)
    warmup_lr: float = option(1e-5, "learning rate of the warm-up", 0.0, 1.0)


@dataclasses.dataclass
class RecipeByShots(Recipe):
    """CoOp's own recipe, and that of those who took it over whole: the more shots, the more epochs."""

    # Wider than the recipe's: left open, `passes` below decides.
    epochs: int | None = option(  # type: ignore[assignment]
        None, "epochs of training; none: 50, 100 or 200 by shots", 1, 10000
    )

    def passes(self, shots: int) -> int:
        """The `epochs`, or what CoOp takes for 1, up to 4, and more images per class."""
        return self.epochs or (50 if shots <= 1 else 100 if shots <= 4 else 200)


def optimizer_of(config: Recipe, parameters: Iterable) -> torch.optim.Optimizer:
    """The optimiser that a recipe names, for parameters or groups of them; a group may have its own weight decay.

    Its own rate is 1, so that the schedule's factor is the learning rate itself.
    """
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, 1.0, momentum=config.momentum, weight_decay=config.weight_decay)
    return torch.optim.AdamW(parameters, 1.0, weight_decay=config.weight_decay, eps=config.eps)


def rate_by_step(step: int, steps: int, lr: float, warmup_steps: int) -> float:
    """A learning rate that rises in a straight line over the warm-up, and falls as a cosine to zero, step by step."""
    if step < warmup_steps:
        return lr * (step + 1) / warmup_steps
    return lr / 2 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))


def _all_or_nothing(change: Callable) -> Callable:
    """`set_classes`, so that one that is refused leaves the method as it was, whatever it had set before it found out."""

    @functools.wraps(change)
    def changed(self, *args, **kwargs):
        before = dict(self.__dict__)
        try:
            return change(self, *args, **kwargs)
        except VlmlabError:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    return changed


class Method(nn.Module):
    """A transfer system over a frozen backbone.

    Its life: construct it with a backbone; `prepare(task)`; if it has parameters, `optimizer(steps)` and `loss(batch)` per
    step; `finish(task)`; then `logits(batch)`. `train()` and `eval()` change nothing: the maths are the same.
    """

    @dataclasses.dataclass
    class Config:
        """A system without settings."""

    embedded: typing.ClassVar[dict] = {}  # overrides of Config on the embedded backbones
    # Overrides under a protocol, by its key: how the system's paper starts it there. They are settings of the experiment
    # (`studies.experiment`), so they stand above `embedded` and below what the user sets. Literals, which the registry reads.
    by_protocol: typing.ClassVar[dict[str, dict]] = {}
    # What else `by_protocol` says of the start: who sets one of these otherwise starts elsewhere, and gets nothing of the protocol's.
    start_implies: typing.ClassVar[dict] = {}
    # What a Batch must carry: "features", "images" or "views"; or "regions": its `index` alone, by which a system finds what it
    # keeps of the images' regions.
    eats: str = "features"
    batches: int = 1  # of an epoch: `fit` sets it
    stage: int = 0  # which of the `stages` is learned from: `fit` sets it
    bank: typing.Any = None  # the FeatureBank that `fit` hands over: it keeps what the frozen encoder said of an image

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "set_classes" in cls.__dict__:
            cls.set_classes = _all_or_nothing(cls.set_classes)  # type: ignore[method-assign]  # its own, wrapped

    def __init__(self, backbone, config=None):
        """`config` defaults to the official one, with the `embedded` overrides if the backbone is an embedded one.

        Raises `VlmlabError` if the backbone lacks what the system needs.
        """
        super().__init__()
        # Past nn.Module's registration: a frozen backbone is no part of what the method learns or saves.
        object.__setattr__(self, "backbone", backbone)
        self.config = self.configure(backbone) if config is None else config
        refuse_backbone(type(self), self.config, backbone)
        self.classes: list[str] = []
        self.learned_on: list[str] = []  # the classes of the task, where a system has something of its own for each
        self.templates: list[str] = []

    @classmethod
    def configure(cls, backbone, **settings) -> typing.Any:
        """The Config for `backbone` with `settings` on top; a setting may be text, as the command line hands it over.

        Raises `VlmlabError` for an unknown setting, and for a value of the wrong type or outside of its limits.
        """
        values = dict(cls.embedded) if backbone.embedded else {}
        if "epochs" in settings:
            values.pop("most_steps", None)  # who asks for epochs gets them
        values |= {name: cls.read_setting(name, value) for name, value in settings.items()}
        return cls.Config(**values)

    @classmethod
    def read_setting(cls, name: str, value: typing.Any) -> typing.Any:
        """The value of one setting as the type that the Config gives it; errors as for `configure`."""
        fields = {field.name: field for field in dataclasses.fields(cls.Config)}
        if name not in fields:
            raise unknown("setting", name, fields)
        return _checked(fields[name], _types(cls.Config)[name], value)

    @classmethod
    def needs(cls, config) -> tuple[str, ...]:
        """What its backbone must offer with these settings, names of `needs.NEEDS`: those of its row in the taxonomy."""
        return cls.info.needs if hasattr(cls, "info") else ()

    # --- what a system overrides -------------------------------------------------------------------------------------

    def prepare(self, task) -> None:
        """Build prompts and caches from `task` (classes, templates, support); a training-free system is then ready."""
        self.set_classes(task.classes, task.templates)

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        """Switch to another label set and keep what was learned (base to new, cross-dataset).

        Raises `VlmlabError` if what the system learned belongs to the classes that it learned on, and for a name that
        the text tower cannot read; the method is then as it was.
        """
        self.backbone.text.check_names(classes, templates[0] if templates else "{}")
        self.classes, self.templates = list(classes), list(templates)

    def logits(self, batch: Batch) -> Tensor:
        """Scores [B, C]; a segmentation system gives [B, C, H, W] at the size of the images."""
        raise NotImplementedError(f"{type(self).__name__}.logits")

    def loss(self, batch: Batch) -> Tensor:
        """The scalar that is minimised: mean cross-entropy unless the system says otherwise."""
        return F.cross_entropy(self.logits(batch), batch.labels)

    def learns_from(self, task):
        """The labelled images of training: the task's support, unless the system labels images itself."""
        return task.support

    def stages(self, task) -> list:
        """The image sets that are learned from one after the other, each with the whole recipe; usually one."""
        return [self.learns_from(task)]

    def before_step(self) -> None:
        """Called between the backward pass and the optimiser's step: gradients may be changed here; usually nothing."""

    def finish(self, task) -> None:
        """Called once after training, for what is chosen on validation images; usually nothing."""

    def views(self, pictures: Sequence, seeds: Sequence[int]) -> Tensor:
        """For a system that eats views: raw images -> [B, V, 3, S, S]; image i is augmented from `seeds[i]`."""
        raise NotImplementedError(f"{type(self).__name__}.views")

    # --- training ----------------------------------------------------------------------------------------------------

    @property
    def batch_size(self) -> int:
        """Training images a step; a system that learns in stages may look at `stage`."""
        return self.config.batch_size

    @property
    def planned_epochs(self) -> int:
        """Epochs that the recipe has; CoOp's depend on the shots, so ask after `prepare`."""
        return self.config.epochs

    @property
    def compared_with(self) -> str:
        """Templates (as `methods.templates` names them) of the zero-shot prediction that stands beside the system's results."""
        return "dataset"

    @property
    def epochs(self) -> int:
        """Epochs that are made: the planned ones, as far as `most_steps` goes."""
        most = getattr(self.config, "most_steps", 0)
        return min(self.planned_epochs, max(1, most // self.batches)) if most else self.planned_epochs

    @property
    def trainable_parameters(self) -> int:
        """How many numbers the system learns."""
        return sum(parameter.numel() for parameter in self.parameters())

    def optimizer(self, steps: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """Optimiser and learning-rate schedule for a run of `steps`; step both once per batch.

        Raises `VlmlabError` if there is nothing to train.
        """
        parameters, config = list(self.parameters()), self.config
        if not parameters:
            raise VlmlabError(f"{type(self).__name__} has nothing to train; prepare() made it ready")
        optimizer = optimizer_of(config, parameters)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.learning_rate(step, steps))
        return optimizer, schedule

    def learning_rate(self, step: int, steps: int) -> float:
        """The rate of one step: warmup_lr in the w warm-up epochs, then lr/2 (1 + cos(pi (k - w) / E)) in epoch k of E.

        It changes once per epoch, and the cosine's period is E although the warm-up came first, so that the last epoch
        ends above zero. Published numbers depend on both.
        """
        config, epoch = self.config, step * self.epochs // steps
        if epoch < config.warmup_epochs:
            return config.warmup_lr
        return config.lr / 2 * (1 + math.cos(math.pi * (epoch - config.warmup_epochs) / self.epochs))

    # --- what systems share ------------------------------------------------------------------------------------------

    def refuse_other_classes(self, classes: Sequence[str], why: str) -> None:
        """For `set_classes` of a system with something of its own for every class of `learned_on`: raises `VlmlabError`, which
        says `why` and what to do, if these are other classes."""
        if list(classes) != self.learned_on:
            raise VlmlabError(why)

    def image_features(self, batch: Batch) -> Tensor:
        """Unit image features [B, e]: those that the batch carries, else its images through the frozen encoder."""
        features = batch.features
        if features is None:
            with torch.no_grad():
                features = self.backbone.encode_image(batch.images)
        return F.normalize(features, dim=-1)

    @torch.no_grad()
    def encode(self, pictures, transform: Callable[[Sequence], Tensor] | None = None) -> Tensor:
        """Features [N, e], not normalised, of an ImageSet: those that the bank keeps, if there is one.

        `transform` maps raw images to [n, 3, S, S]; what a system augments itself is always computed.
        """
        if transform is None and self.bank is not None:
            return self.bank.features(pictures).to(self.backbone.device)
        return torch.cat([self.backbone.encode_image(images) for images in self.in_turn(pictures, transform)])

    def in_turn(self, pictures, transform: Callable[[Sequence], Tensor] | None = None) -> Iterator[Tensor]:
        """All images of an ImageSet, [n, 3, S, S] at once, so many that one pass through an image tower bears them."""
        for start in range(0, len(pictures), PICTURES_AT_ONCE):
            raw = pictures.images(range(start, min(start + PICTURES_AT_ONCE, len(pictures))))
            yield (transform or self.preprocess)(raw)

    def preprocess(self, pictures: Sequence) -> Tensor:
        """Raw uint8 images [H, W, 3], of one size or several -> [n, 3, S, S] by the backbone's test transform."""
        return self.backbone.preprocess(pictures).to(self.backbone.device)


@functools.cache
def _types(config: type) -> dict[str, typing.Any]:
    return typing.get_type_hints(config)


def _checked(field: dataclasses.Field, kind: typing.Any, value: typing.Any) -> typing.Any:
    """`value` as the field's type (text is read), within its limits and choices; otherwise `VlmlabError`."""
    facts, wrong = field.metadata, f"setting {field.name} ({field.metadata['help']})"
    if value is None or str(value).lower() == "none":
        if field.default is None:
            return None
        raise VlmlabError(f"{wrong} cannot be none; leave it out for its default")
    kind = next(k for k in typing.get_args(kind) or (kind,) if k is not type(None))
    try:
        if kind is bool:
            value = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[str(value).lower()]
        else:
            value = int(str(value)) if kind is int else kind(value)
    except (KeyError, ValueError, TypeError) as error:
        raise VlmlabError(f"{wrong} takes {KINDS[kind]}, not '{value}'") from error
    if facts["choices"] and value not in facts["choices"]:
        raise unknown(f"value of {field.name}", str(value), facts["choices"])
    low, high = facts["low"], facts["high"]
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        raise VlmlabError(f"{wrong} must lie between {low} and {high}, not {value}")
    return value
