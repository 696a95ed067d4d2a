"""What the checks of systems that segment first and name afterwards share: fits, figures, and the two ceilings."""

from __future__ import annotations

import dataclasses
import functools

import torch

from vlmlab.learning.evaluate import evaluate
from vlmlab.methods.dense.mask_former import segments
from vlmlab.studies.experiment import Experiment
from vlmlab.studies.run import Adapted, adapt, some
from vlmlab.studies.table import spread
from vlmlab.studies.verify._measure import BACKBONE
from vlmlab.world.palette import STUFF

PICTURES = 200
"""Test images: about so many, the same for every seed; seventeen crops of each go through CLIP."""


@functools.lru_cache(maxsize=6)
def fitted(system: str, seed: int, config: tuple[tuple[str, object], ...] = ()) -> Adapted:
    """The system, fitted to tableau with its stuff."""
    return adapt(Experiment(system, "tableau", BACKBONE, 0, seed, "all", config))


def figures(adapted: Adapted, **settings) -> dict[str, float]:
    """Mean intersection over union in percent of base and new classes and their harmonic mean, of a fitted system that
    answers with other `settings`."""
    method, task = adapted.method, adapted.task
    before = method.config
    method.config = dataclasses.replace(before, **settings)
    try:
        groups = {"base": task.base, "new": task.new}
        found = evaluate(method, some(task.test, PICTURES), adapted.bank, groups=groups)
    finally:
        method.config = before
    return {"base": found["miou_base"], "new": found["miou_new"], "harmonic_mean": found["harmonic_mean"]}


@torch.no_grad()
def ceilings(adapted: Adapted, **settings) -> dict[str, float]:
    """What no naming and no proposal can go beyond, in percent of the true segments of a group (base and new things, stuff):
    those that a proposal meets with an intersection over union of one half ("recall_"), and those that CLIP names right when
    it gets the true mask ("teacher_"). `settings` as for `figures`."""
    method, task = adapted.method, adapted.task
    before, method.config = method.config, dataclasses.replace(method.config, **settings)
    pictures, counts = some(task.test, PICTURES), {group: torch.zeros(3) for group in ("base", "new", "stuff")}
    new = set(task.new)
    for i in range(len(pictures)):
        images, frames = method.framed([pictures.images(i)])
        labels, masks, _ = segments(frames[0].truth(pictures.truth(i)).semantic.to(images.device))
        if not len(labels):
            continue
        proposed = (method.propose(images)[0][0] > 0).flatten(1).float()  # [N, P]
        common = masks @ proposed.T
        best = (common / (masks.sum(1)[:, None] + proposed.sum(1) - common).clamp_min(1)).amax(1)
        features, _ = method.encoded(images, masks.unflatten(1, images.shape[-2:])[None].bool())
        named = (features[0] @ method.clip_words.T).argmax(1)
        for c, own, name in zip(labels.tolist(), best.tolist(), named.tolist(), strict=True):
            group = "stuff" if method.classes[c] in STUFF else "new" if c in new else "base"
            counts[group] += torch.tensor([own >= 0.5, name == c, True])
    method.config = before
    found = {f"recall_{group}": 100 * float(met / total) for group, (met, _, total) in counts.items() if total}
    return found | {
        f"teacher_{group}": 100 * float(right / total) for group, (_, right, total) in counts.items() if total
    }


def rounded(rows: list[dict[str, float]], prefix: str = "") -> dict[str, float]:
    """Means over the seeds, to two decimals."""
    return {f"{prefix}{name}": round(sum(row[name] for row in rows) / len(rows), 2) for name in rows[0]}


def gain(rows: list[dict[str, float]], others: list[dict[str, float]], name: str) -> tuple[float, float]:
    """Mean and standard deviation over the seeds of what `rows` have more than `others`."""
    return spread([a[name] - b[name] for a, b in zip(rows, others, strict=True)])
