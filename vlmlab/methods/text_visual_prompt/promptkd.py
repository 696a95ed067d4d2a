"""PromptKD: Unsupervised Prompt Distillation for Vision-Language Models (arXiv:2403.02781, CVPR 2024).

Not in the survey; it follows PromptSRC, which it takes for a teacher. Labels are few, images are not. A larger model learns
prompts from the labelled images; then it predicts the images without labels, and a smaller model learns to predict the
same. Class names pass through the teacher's text tower alone, once: the student has an image tower, prompts in it, and a
projection to the teacher's width.

    stage 1:  the teacher is PromptSRC on its own backbone, from the support                                         (1)
              w_c = n(E_T(prompts, c)),   q = softmax(s_t f_t w^T / T),   f_t = n(E_I(prompts, x))                   (2)
    stage 2:  image block j of the student: n learned tokens V_j behind the patches, j = 0 .. J-1                    (3)
              f = n(h(E_S(x, V))),   h(z) = U2 ReLU(BN(U1 z + b1)) + b2                    [e] -> [e']               (4)
              p = softmax(s f w^T / T)                                                                               (5)
              loss = lambda T^2 / (B C) sum_b KL(q_b || p_b)                                                         (6)

BN takes the statistics of the batch while it learns and their running means afterwards. The images of stage 2 are, as in the release's
base-to-new protocol, training images of *all* classes of the dataset, new ones among them, without labels; and C counts all
names. So its numbers on new classes are those of a system that has seen such images and names, and do not stand beside those
of systems that have not; `unlabelled=own` keeps to the classes of the task.

lambda is 1000 in the release's scripts (200 for three of its datasets), and 1 in its configuration file.

What differs from the release: float32; the teacher's predictions of an image are computed once, unless training asks for crops; an
incomplete last batch is left out. The release downloads a teacher; here its stage runs first.

A student is as good as its teacher's word on the unlabelled images. On the embedded backbones the teacher is of the student's own
size, and learned from sixteen images per class: on textures it names 37 to 53 % of these images right, where zero-shot prediction
names 68 %, and the student's new classes fall with it; on aerial 73 to 75 % (zero-shot 48 %), and there the student gains.

Dimensions: B batch, C names, n tokens, J layers with prompts, D image width, e and e' joint widths of student and teacher.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.backbones.loading import load_backbone
from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch, Method, Recipe, optimizer_of, option
from vlmlab.methods.text_prompt.prompts import random_vectors
from vlmlab.methods.text_visual_prompt.promptsrc import PromptSRC
from vlmlab.randomness import LocalRandom
from vlmlab.registry import register

OWN = "own"  # the teacher's backbone is the student's; the unlabelled images are of the task's classes
TEACHER = {"batch_size": 8, "lr": 0.005}  # of the release's PromptSRC on ViT-L/14
MOMENTUM = 0.1  # of the running statistics, PyTorch's default


@register(
    "promptkd",
    title="PromptKD: Unsupervised Prompt Distillation for Vision-Language Models",
    paper="arXiv:2403.02781",
    year=2024,
    section="6.3.1",
    family="text_visual_prompt",
    setup="semi-supervised",
    learns="a PromptSRC on the teacher, then deep visual prompts and a projection of the student",
    needs=("text tokens", "image tokens"),
    status="extra",
)
class PromptKD(Method):
    """A student whose visual prompts learn what a prompted teacher predicts of unlabelled images."""

    @dataclasses.dataclass
    class Config(Recipe):
        teacher: str = option("ViT-L-14/openai", "backbone of the teacher; own: that of the student")
        unlabelled: str = option(
            "all", "images without labels: of all classes of the dataset, or of the task's own", choices=("all", OWN)
        )
        n_ctx: int = option(4, "tokens n in each prompted layer of the student's image tower", 1, 64)
        depth: int = option(9, "layers with prompts J", 1, 48)
        temperature: float = option(1.0, "temperature T of the distillation", 0.01, 100.0)
        weight: float = option(1000.0, "lambda, factor of the loss", 0.0, 1e6)
        epochs: int = option(20, "epochs of distillation", 1, 10000)
        batch_size: int = option(8, "unlabelled images a step", 2, 4096)
        lr: float = option(0.005, "learning rate after the warm-up", 0.0, 10.0)

    embedded: ClassVar[dict] = {
        "teacher": OWN, "depth": 3, "optimizer": "adamw", "lr": 0.005, "epochs": 8, "batch_size": 32, "weight": 100.0
    }  # fmt: skip
    eats = "images"

    def __init__(self, backbone, config=None):
        super().__init__(backbone, config)
        backbone.image.check_prompts("PromptKD", self.config.depth)

    def prepare(self, task) -> None:
        config, taught_by = self.config, self.backbone
        if config.teacher != OWN:
            taught_by = load_backbone(config.teacher, str(self.backbone.device))
        settings = {} if taught_by.embedded else TEACHER
        self.teacher = PromptSRC(taught_by, PromptSRC.configure(taught_by, **settings))
        self.teacher.prepare(task)
        self.set_classes(task.classes, task.templates)
        # The same split of the same images, with the names of all classes.
        whole = task if config.unlabelled == OWN else task.for_classes("all", 0)
        self.names = list(whole.classes)
        hidden = whole.unlabelled
        self.pictures = hidden.relabelled(torch.zeros(len(hidden), dtype=torch.long))  # of which no label is read
        self.support = task.support
        e, wide = self.backbone.embed_dim, taught_by.embed_dim
        with LocalRandom(task.seed):
            tokens = random_vectors(config.depth, config.n_ctx, self.backbone.image.width)
            inner, outer = nn.Linear(e, wide), nn.Linear(wide, wide)
        device = self.backbone.device
        self.visual = nn.Parameter(tokens.to(device))  # V [J, n, D]
        self.inner, self.norm, self.outer = inner.to(device), nn.BatchNorm1d(wide).to(device), outer.to(device)  # h
        self.register_buffer("finished", torch.zeros((), dtype=torch.bool))  # whether the teacher has learned
        self.taught: tuple[Tensor, Tensor] | None = None  # w [C, e'] of all names, teacher's logits [N, C]

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        """The teacher reads the names; what was learned stays."""
        super().set_classes(classes, templates)
        self.teacher.set_classes(classes, templates)

    def features(self, images: Tensor, learning: bool = False) -> Tensor:
        """Unit f [B, e'] of (4); `learning` normalises by the batch, and moves the running statistics."""
        first, *deep = self.visual
        z = self.inner(self.backbone.image.forward(images, first, deep))
        norm = self.norm
        z = F.batch_norm(z, norm.running_mean, norm.running_var, norm.weight, norm.bias, learning, MOMENTUM, norm.eps)
        return F.normalize(self.outer(z.relu()), dim=-1)

    @torch.no_grad()
    def words(self) -> Tensor:
        """w [C, e'] of (2): unit features of the names that the teacher has now."""
        return self.teacher.class_features()

    def logits(self, batch: Batch) -> Tensor:
        return self.backbone.logit_scale * self.features(batch.images) @ self.words().T  # [B, C]

    def loss(self, batch: Batch) -> Tensor:
        if self.stage == 0:
            return self.teacher.loss(self._for_teacher(batch, self.support))  # (1)
        if len(batch.images) < 2:
            raise VlmlabError("PromptKD normalises over a batch; it needs at least two unlabelled images")
        words, taught = self._taught()
        if batch.whole:
            target = taught[batch.index.to(taught.device)]
        else:
            target = self._predicted(self._for_teacher(batch, self.pictures).images, words)
        logits = self.backbone.logit_scale * self.features(batch.images, learning=True) @ words.T
        return self.config.weight * distillation(logits, target, self.config.temperature)

    def _for_teacher(self, batch: Batch, pictures) -> Batch:
        """The batch as the teacher's backbone wants its images; errors if they are crops that only the student can read."""
        if _same_input(self.backbone, self.teacher.backbone):
            return batch
        if not batch.whole:
            raise VlmlabError(
                f"PromptKD shows crops to both models, and {self.teacher.backbone.name} reads images of another size than "
                f"{self.backbone.name}; use views=0"
            )
        images = self.teacher.preprocess(pictures.images(batch.index.cpu().numpy()))
        return dataclasses.replace(batch, images=images)

    def _taught(self) -> tuple[Tensor, Tensor]:
        """w [C, e'] of all names and the teacher's logits [N, C] of the unlabelled images (2), computed once."""
        if self.taught is None:
            self._end_of_teaching()
            own = list(self.classes), list(self.templates)
            self.teacher.set_classes(self.names, own[1])
            words = self.words()
            self.teacher.set_classes(*own)
            parts = self.teacher.in_turn(self.pictures)
            self.taught = words, torch.cat([self._predicted(images, words) for images in parts])
        return self.taught

    @torch.no_grad()
    def _predicted(self, images: Tensor, words: Tensor) -> Tensor:
        """The teacher's logits [B, C] of its own images."""
        return self.teacher.backbone.logit_scale * self.teacher.unit_features(images) @ words.T

    def _end_of_teaching(self) -> None:
        """The mean over the teacher's epochs takes the place of its last tokens; once."""
        if not self.finished:
            self.teacher.finish(None)
            self.finished.fill_(True)

    # --- two stages ------------------------------------------------------------------------------------------------------

    def stages(self, task) -> list:
        """The labelled images for the teacher, those without labels for the student."""
        return [task.support, self.pictures]

    @property
    def batch_size(self) -> int:
        return self.teacher.batch_size if self.stage == 0 else self.config.batch_size

    @property
    def planned_epochs(self) -> int:
        return self.teacher.planned_epochs if self.stage == 0 else self.config.epochs

    @property
    def epochs(self) -> int:
        if self.stage == 0:
            self.teacher.batches = self.batches
            return self.teacher.epochs
        return super().epochs

    def optimizer(self, steps: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """The teacher's own, then one for the student alone."""
        if self.stage == 0:
            return self.teacher.optimizer(steps)
        student = [self.visual, *self.inner.parameters(), *self.norm.parameters(), *self.outer.parameters()]
        optimizer = optimizer_of(self.config, student)
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.learning_rate(step, steps))

    def before_step(self) -> None:
        if self.stage == 0:
            self.teacher.before_step()

    def finish(self, task) -> None:
        self._end_of_teaching()  # of a run that was stopped before the student began
        self.taught = None


def distillation(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """(6) without its factor: T^2 KL(softmax(taught / T) || softmax(logits / T)), the sum over the batch by B C; each [B, C]."""
    q, p = ((x / temperature).log_softmax(-1) for x in (taught, logits))
    return F.kl_div(p, q, reduction="sum", log_target=True) * temperature**2 / logits.numel()


def _same_input(one, other) -> bool:
    """Whether two backbones read the same pixels the same way."""
    return one.image_size == other.image_size and torch.equal(one.mean, other.mean) and torch.equal(one.std, other.std)
