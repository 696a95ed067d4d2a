"""Linear probe: logistic regression on frozen image features (as in CLIP, arXiv:2103.00020, and CoOp's `lpclip`).

Survey, section 6.3.3. What a classifier learns from the images alone, when the text is thrown away. With one or two shots
it is below zero-shot prediction, because it begins from nothing; with many it wins. Every few-shot system must beat both.

    logits = h W^T + b,   h = E_I(x), not normalised                                     (1)
    min over W, b of  sum_i CE(logits_i, y_i) + |W|^2 / (2 c)                            (2)

The strength c is chosen on validation images as in CoOp's code: the best of 10^6, 10^4, ..., 10^-6, then eight halvings of
the interval from a tenth to ten times the best, in the logarithm; of two equal ends the left is taken. Without validation
images c = 0.316, the value of CLIP's own example. scikit-learn minimises (2) by L-BFGS in at most 1,000 iterations.

Dimensions: B batch, C classes, e image feature width.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch, Method, option
from vlmlab.registry import register

COARSE = tuple(10.0**power for power in (6, 4, 2, 0, -2, -4, -6))


@register(
    "linear_probe",
    title="Linear probe: logistic regression on CLIP's image features",
    paper="arXiv:2103.00020",
    year=2021,
    section="6.3.3",
    family="other",
    setup="few-shot",
    learns="a linear classifier",
    status="extra",
)
class LinearProbe(Method):
    """A classifier that knows images and no words."""

    @dataclasses.dataclass
    class Config:
        c: float | None = option(None, "inverse strength of the penalty; none: chosen on validation images", 1e-9, 1e9)
        rounds: int = option(8, "halvings of the search", 0, 20)

    eats = "features"

    def prepare(self, task) -> None:
        if not len(task.support):
            raise VlmlabError("a linear probe learns from labelled images; ask for at least one shot")
        self.learned_on: list[str] = list(task.classes)
        self.set_classes(task.classes, task.templates)
        h, y = self.encode(task.support), task.support.labels
        self.c = self.config.c
        if self.c is None:
            self.c = self._search(h, y, self.encode(task.val), task.val.labels) if len(task.val) else 0.316
        weight, bias = solve(h, y, len(task.classes), self.c)
        self.register_buffer("weight", weight)  # W [C, e]
        self.register_buffer("bias", bias)  # b [C]

    @property
    def trainable_parameters(self) -> int:
        return self.weight.numel() + self.bias.numel()

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        """Raises `VlmlabError` for other classes than those that it learned."""
        self.refuse_other_classes(
            classes, "a linear probe has no text and knows only its own classes; prepare it on the others"
        )
        super().set_classes(classes, templates)

    def logits(self, batch: Batch) -> Tensor:
        h = self.backbone.encode_image(batch.images) if batch.features is None else batch.features
        return h @ self.weight.T.to(h) + self.bias.to(h)  # [B, C] (1)

    def _search(self, h: Tensor, y: Tensor, h_val: Tensor, y_val: Tensor) -> float:
        classes = len(self.learned_on)

        @functools.cache  # of the two ends of an interval, one is an end of the next
        def accuracy(c: float) -> float:
            weight, bias = solve(h, y, classes, c)
            return ((h_val.cpu() @ weight.T + bias).argmax(1) == y_val.cpu()).double().mean().item()

        best = max(COARSE, key=accuracy)  # the first of equals
        left, right = math.log10(best) - 1, math.log10(best) + 1
        for _ in range(self.config.rounds):
            if accuracy(10**left) < accuracy(10**right):
                best, left = 10**right, (left + right) / 2
            else:
                best, right = 10**left, (left + right) / 2
        return best


def solve(h: Tensor, y: Tensor, classes: int, c: float) -> tuple[Tensor, Tensor]:
    """W [C, e] and b [C] of (2) for features h [N, e] and labels y [N] in 0 to C-1; a class without images never wins."""
    if len(y.unique()) == 1:  # nothing to tell apart, and scikit-learn refuses
        return torch.zeros(classes, h.shape[1]), F.one_hot(y[0], classes).float()
    with warnings.catch_warnings():
        # At the ends of the search there is no need to converge; and at one shot every class is "rare".
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", UserWarning)
        fitted = LogisticRegression(C=c, max_iter=1000, random_state=0).fit(h.cpu().numpy(), y.cpu().numpy())
    weight, bias = (torch.as_tensor(x, dtype=torch.float32) for x in (fitted.coef_, fitted.intercept_))
    if len(weight) == 1:  # scikit-learn writes two classes as one row
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    full = torch.zeros(classes, weight.shape[1]), torch.full((classes,), -1e4)
    seen = torch.as_tensor(fitted.classes_)
    full[0][seen], full[1][seen] = weight, bias
    return full
