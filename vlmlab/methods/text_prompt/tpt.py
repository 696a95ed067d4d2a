"""TPT: Test-Time Prompt Tuning for Zero-shot Generalization in Vision-Language Models (arXiv:2209.07511, NeurIPS 2022).

Survey, section 6.3.1. One test image, no label, no training set: still something can be learned, because a classifier
should say the same about every crop of the image. TPT looks at many random views, keeps those that it is sure about,
takes one gradient step on the prompt so that their averaged prediction becomes sharper, predicts, and forgets the step.

    p_v = softmax(s f_v W^T),  v = 0 .. V-1        view 0 is the plain centre crop                       (1)
    S = the share of views with the lowest entropy H(p_v)                                                (2)
    loss = H( mean over S of p_v )                 mean of probabilities, not of logits                  (3)
    context <- one AdamW step; prediction: logits of view 0 with it; then the context is reset           (4)

Images are independent, and AdamW works on each number by itself, so B images are tuned at once, each with its own
context and optimiser state: the sum of their losses gives each context exactly its own gradient.

The context begins as "a photo of a" on every dataset, as in the release's script (scripts/test_tpt.sh). So what the steps gain is the
difference to zero-shot prediction with the sentence "a photo of a {}.", and that one stands beside TPT's results here; the sentences
that were written for a dataset are other words, from which TPT begins with `init=template`: those before the name in
the first sentence of the dataset are the context, those behind it stay as they are.

What differs from the release: float32 instead of automatic mixed precision; an image's views follow from its seed, not
from its place in the test set. Call `logits` under `torch.no_grad()`, not `inference_mode()`, which forbids the step.

Dimensions: B images, V views, K kept views, C classes, M context vectors, d text width, e joint width, S image side.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
import torchvision.transforms.functional as vision
from torch import Tensor
from torchvision.transforms import InterpolationMode

from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch, Method, option
from vlmlab.methods.text_prompt.prompts import assemble, first_words
from vlmlab.methods.views import crop_and_flip, view_features
from vlmlab.randomness import LocalRandom
from vlmlab.registry import register


@register(
    "tpt",
    title="TPT: Test-Time Prompt Tuning for Zero-shot Generalization in Vision-Language Models",
    paper="arXiv:2209.07511",
    year=2022,
    section="6.3.1",
    family="text_prompt",
    setup="test-time",
    learns="context vectors, again for every test image",
    needs=("text tokens",),
)
class TPT(Method):
    """One gradient step per test image. `start` [M, d] is the context that every image begins with."""

    @dataclasses.dataclass
    class Config:
        init: str = option(
            "a photo of a", "words that the context starts from; template: those of the dataset's first sentence"
        )
        n_views: int = option(64, "views V of an image, the plain one among them", 2, 1024)
        selection: float = option(0.1, "share of views that is kept", 0.0, 1.0)
        steps: int = option(1, "gradient steps per image", 0, 100)
        lr: float = option(0.005, "learning rate of AdamW", 0.0, 1.0)
        weight_decay: float = option(0.01, "weight decay of AdamW", 0.0, 1.0)
        augmix: bool = option(False, "AugMix on top of the crops (the release: on fine-grained datasets only)")

    embedded: ClassVar[dict] = {"n_views": 32}
    eats = "views"

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        """The prompts of these classes, and the context that their images begin with.

        Raises `VlmlabError` if the context is to begin as the dataset's sentence and that has no word before the name.
        """
        super().set_classes(classes, templates)
        before, _, behind = self.compared_with.partition("{}")
        if not before.strip():
            raise VlmlabError(
                f"the sentence '{self.compared_with}' has no word before the name to begin with; use init='a photo of a'"
            )
        self.prompts = assemble(self.backbone.text, classes, before.strip(), stop=behind)
        self.start = self.prompts.words.float()

    @property
    def compared_with(self) -> str:
        """The sentence that the context begins as."""
        return self.templates[0] if self.config.init == "template" else f"{first_words(self.config.init, 1)} {{}}."

    def logits(self, batch: Batch) -> Tensor:
        """[B, C] from images [B, V, 3, S, S], or from the views' features [B, V, e]; view 0 is the plain one."""
        f = F.normalize(view_features(self.backbone, batch), dim=-1)
        context = self.tune(f)
        with torch.no_grad():
            return self.scores(f[:, :1], context)[:, 0]  # (4)

    def tune(self, f: Tensor) -> Tensor:
        """The contexts [B, M, d] after the steps on unit view features f [B, V, e]."""
        config = self.config
        with torch.enable_grad():
            context = self.start.expand(len(f), -1, -1).clone().requires_grad_()
            optimizer = torch.optim.AdamW([context], config.lr, weight_decay=config.weight_decay)
            kept = None
            for _ in range(config.steps):
                logits = self.scores(f, context)
                # Chosen once: later steps go on with the same views.
                kept = confident(logits.detach(), config.selection) if kept is None else kept
                loss = averaged_entropy(logits.gather(1, kept[..., None].expand(-1, -1, logits.shape[2]))).sum()
                (context.grad,) = torch.autograd.grad(loss, context)
                optimizer.step()
        return context.detach()

    def scores(self, f: Tensor, context: Tensor) -> Tensor:
        """s f W^T [B, V, C] of unit features f [B, V, e] with the class vectors of each image's context [B, M, d]."""
        w = F.normalize(self.prompts.features(self.backbone.text, context), dim=-1)  # [B, C, e]
        return self.backbone.logit_scale * f @ w.transpose(1, 2)  # (1)

    def views(self, pictures: Sequence, seeds: Sequence[int]) -> Tensor:
        """Raw images [H, W, 3] -> [B, V, 3, S, S]: the test transform, then V-1 random crops, mixed if `augmix`."""
        return torch.stack([self._views(picture, seed) for picture, seed in zip(pictures, seeds, strict=True)])

    def _views(self, picture, seed: int) -> Tensor:
        pixels, augment = torch.as_tensor(picture).movedim(-1, 0), crop_and_flip(self.backbone.image_size)  # [3, H, W]
        with LocalRandom(seed):
            crops = [augment(pixels) for _ in range(self.config.n_views - 1)]
            views = [self._augmix(crop) for crop in crops] if self.config.augmix else [self._ready(crops)]
        return torch.cat([self.preprocess([picture]), *views])

    def _ready(self, crops: Sequence[Tensor]) -> Tensor:
        return self.preprocess([crop.movedim(0, -1) for crop in crops])

    def _augmix(self, crop: Tensor) -> Tensor:
        """m x + (1 - m) sum_k w_k chain_k(x), [1, 3, S, S]: three chains of 1 to 3 operations (arXiv:1912.02781)."""
        chains = []
        for _ in range(3):
            x = crop
            for _ in range(int(torch.randint(1, 4, ()))):
                x = OPERATIONS[int(torch.randint(len(OPERATIONS), ()))](x)
            chains.append(x)
        x, *mixed = self._ready([crop, *chains])
        w = torch.distributions.Dirichlet(torch.ones(3)).sample().tolist()
        m = float(torch.rand(()))  # Beta(1, 1)
        return (m * x + (1 - m) * sum(a * b for a, b in zip(w, mixed, strict=True)))[None]


def confident(logits: Tensor, share: float) -> Tensor:
    """Indices [..., K] of the views of logits [..., V, C] with the lowest entropy, lowest first (2); at least one."""
    log_p = logits.log_softmax(-1)
    entropy = -(log_p.exp() * log_p).sum(-1)  # [..., V]
    return entropy.argsort(-1)[..., : max(1, int(logits.shape[-2] * share))]


def averaged_entropy(logits: Tensor) -> Tensor:
    """H of the mean probability over the views of logits [..., K, C], per image [...] (3)."""
    log_mean = logits.log_softmax(-1).logsumexp(-2) - math.log(logits.shape[-2])  # [..., C]
    log_mean = log_mean.clamp(min=torch.finfo(log_mean.dtype).min)
    return -(log_mean.exp() * log_mean).sum(-1)


def _level(most: float) -> float:
    """A random strength up to a tenth of `most`: AugMix at severity 1."""
    return float(torch.empty(()).uniform_(0.1, 1.0)) * most / 10


def _either(value: float) -> float:
    return value if torch.rand(()) > 0.5 else -value


def _shear() -> float:
    """The angle in degrees of a random slope."""
    return _either(math.degrees(math.atan(_level(0.3))))


def _affine(x: Tensor, shear=(0.0, 0.0), shift=(0, 0)) -> Tensor:
    """The corner stays where it is in a shear, as in Pillow."""
    return vision.affine(
        x, 0.0, list(shift), 1.0, list(shear), interpolation=InterpolationMode.BILINEAR, center=[0.0, 0.0]
    )


# Nine operations on uint8 images [3, S, S]; slopes reach 0.3 and shifts a third of the side (at a tenth of the strength).
OPERATIONS = (
    vision.autocontrast,
    vision.equalize,
    lambda x: vision.posterize(x, 4 - int(_level(4))),
    lambda x: vision.solarize(x, 256 - int(_level(256))),
    lambda x: vision.rotate(x, _either(int(_level(30))), interpolation=InterpolationMode.BILINEAR),
    lambda x: _affine(x, shear=(_shear(), 0.0)),
    lambda x: _affine(x, shear=(0.0, _shear())),
    lambda x: _affine(x, shift=(_either(int(_level(x.shape[-1] / 3))), 0)),
    lambda x: _affine(x, shift=(0, _either(int(_level(x.shape[-1] / 3))))),
)
