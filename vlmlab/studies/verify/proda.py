"""ProDA: prompts that have nothing in common as words lie together as class weights, so that a Gaussian fits (arXiv 2205.03340)."""

from __future__ import annotations

import torch
from torch import Tensor

from vlmlab.learning.evaluate import evaluate
from vlmlab.studies.experiment import Experiment
from vlmlab.studies.run import adapt
from vlmlab.studies.table import spread
from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import BACKBONE, SEEDS, over_seeds, results

claim = (
    "as words, learned prompts lie farther apart than class names; as class weights, closer together than classes do"
)
cause = (
    "learned contexts of micro-vit are short vectors, so that as words they lie nearer together than the "
    "names do; and eight prompts give class weights as far apart as ten textures"
)
DATASET = "textures"


def measure() -> Verdict:
    """Root mean squared distance between prompts of one class over that between classes for one prompt, as words (all
    token embeddings that the two prompts do not share) and as class weights; 16 shots, three seeds; holds if the
    ratio is above 1 as words and below 1 as weights for every seed."""
    words, weights, accuracy = [], [], []
    for seed in SEEDS:
        adapted = adapt(Experiment("proda", DATASET, BACKBONE, 16, seed))
        method = adapted.method
        accuracy.append(evaluate(method, adapted.task.test, adapted.bank)["accuracy"])
        with torch.no_grad():
            w = method.weights(torch.arange(method.config.n_prompts))  # [K, C, e]
            between_prompts = apart(w.transpose(0, 1))
            weights.append(float(between_prompts / apart(w)))
            contexts = method.context.flatten(1)[None]  # one group of K
            names = method.prompts.rest.flatten(1)[None]  # one group of C
            words.append(float(apart(contexts) / apart(names)))
    coop = over_seeds(results("coop", DATASET))[0]
    measured = {
        "ratio_as_words": [round(r, 2) for r in words],
        "ratio_as_weights": [round(r, 2) for r in weights],
        "accuracy": round(spread(accuracy)[0], 2),
        "accuracy_sd": round(spread(accuracy)[1], 2),
        "coop": coop,
    }
    return Verdict("proda", claim, measured, min(words) > 1 and max(weights) < 1)


def apart(groups: Tensor) -> Tensor:
    """Root mean squared distance between different rows of the same group, of rows [G, n, d]."""
    n = groups.shape[1]
    return (torch.cdist(groups, groups) ** 2).sum((1, 2)).div(n * (n - 1)).mean().sqrt()
