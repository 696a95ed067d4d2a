"""What the checks of systems that segment first and name afterwards share: fits, metrics, and the two ceilings."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import torch

from vlmlab.learning.evaluate import evaluate
from vlmlab.methods.dense.mask_former import segments
from vlmlab.studies.experiment import Experiment
from vlmlab.studies.run import Adapted, adapt, some
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
    method = adapted.method
    before = method.config
    method.config = dataclasses.replace(before, **settings)
    try:
        found = measured(adapted)
    finally:
        method.config = before
    return {"base": found["miou_base"], "new": found["miou_new"], "harmonic_mean": found["harmonic_mean"]}


def segment_figures(adapted: Adapted) -> dict[str, float]:
    """What a system that tells objects apart is measured by, in percent: "miou", "pq" and "mask_ap50", also of new classes."""
    found = measured(adapted)
    return {f"{name}{group}": found[f"{name}{group}"] for name in ("miou", "pq", "mask_ap50") for group in ("", "_new")}


def measured(adapted: Adapted) -> dict[str, Any]:
    """`evaluate` on the test images of the check."""
    task = adapted.task
    groups = {"base": task.base, "new": task.new}
    return evaluate(adapted.method, some(task.test, PICTURES), adapted.bank, groups=groups)


@torch.no_grad()
def ceilings(adapted: Adapted, **settings) -> dict[str, float]:
    """What no naming and no proposal can go beyond, in percent of the true segments of a group (base and new things, stuff):
    those that a proposal meets with an intersection over union of one half ("recall_"), and those that CLIP names right when
    it gets the true mask ("teacher_"). `settings` as for `figures`."""
    method = adapted.method
    before, method.config = method.config, dataclasses.replace(method.config, **settings)
    counts = _counts()
    for images, labels, masks, groups in true_segments(adapted):
        features, _ = method.encoded(images, masks.unflatten(1, images.shape[-2:])[None].bool())
        named = (features[0] @ method.clip_words.T).argmax(1) == labels
        _count(counts, groups, torch.stack([met(method, images, masks), named], 1))
    method.config = before
    return _shares(counts, ("recall", "teacher"))


def naming_ceilings(found: Mapping[str, float]) -> dict[str, float]:
    """The `ceilings` of new things as `judged` takes them."""
    return {"recall of new things": found["recall_new"], "CLIP on true masks of new things": found["teacher_new"]}


@torch.no_grad()
def proposed(adapted: Adapted) -> dict[str, float]:
    """The first of the `ceilings` ("recall_") alone, for a system that does not show segments to CLIP."""
    counts = _counts()
    for images, _, masks, groups in true_segments(adapted):
        _count(counts, groups, met(adapted.method, images, masks)[:, None])
    return _shares(counts, ("recall",))


def true_segments(adapted: Adapted):
    """Per test image of the check that shows any class: (the image [1, 3, S, S], labels [G], masks [G, P] of what it shows of each, the
    group of each)."""
    method, task = adapted.method, adapted.task
    pictures, new = some(task.test, PICTURES), set(task.new)
    for i in range(len(pictures)):
        images, frames = method.framed([pictures.images(i)])
        labels, masks, _ = segments(frames[0].truth(pictures.truth(i)).semantic.to(images.device))
        if len(labels):
            names = [(c, method.classes[c]) for c in labels.tolist()]
            yield images, labels, masks, ["stuff" if n in STUFF else "new" if c in new else "base" for c, n in names]


def met(method, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Whether a proposal meets each true mask [G, P] of an image [1, 3, S, S] with an intersection over union of one half."""
    own = (method.propose(images)[0][0] > 0).flatten(1).float()  # [N, P]
    common = masks @ own.T
    return (common / (masks.sum(1)[:, None] + own.sum(1) - common).clamp_min(1)).amax(1) >= 0.5


def _counts() -> dict[str, list[torch.Tensor]]:
    return {group: [] for group in ("base", "new", "stuff")}


def _count(counts: dict[str, list[torch.Tensor]], groups: list[str], right: torch.Tensor) -> None:
    for group, row in zip(groups, right.cpu(), strict=True):
        counts[group].append(row)


def _shares(counts: dict[str, list[torch.Tensor]], names: tuple[str, ...]) -> dict[str, float]:
    shares = {group: 100 * torch.stack(rows).float().mean(0) for group, rows in counts.items() if rows}
    return {f"{name}_{group}": float(share[k]) for k, name in enumerate(names) for group, share in shares.items()}


def rounded(rows: list[dict[str, float]], prefix: str = "") -> dict[str, float]:
    """Means over the seeds, to two decimals."""
    return {f"{prefix}{name}": round(sum(row[name] for row in rows) / len(rows), 2) for name in rows[0]}


def gains(rows: list[dict[str, float]], others: list[dict[str, float]], name: str) -> list[float]:
    """What `rows` have more than `others`, seed by seed."""
    return [a[name] - b[name] for a, b in zip(rows, others, strict=True)]
