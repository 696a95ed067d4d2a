"""Another task, panoptic segmentation: which half of it fails without training, the masks or the names?

Every pixel is to get a class and a segment: an object of a thing, or a ground as a whole. Nothing is trained. Masks come from clusters
of the frozen tower's local features (k-means), or from the ground truth; names from the mean of the local features under a mask,
or from the ground truth. With one half true, the panoptic quality (arXiv 1801.00868) is that of the other half:

    PQ = (sum of the IoU of matched segments) / (matched + (missed + invented) / 2),     matched: one class, IoU > 1/2

as the mean over the classes that are shown, in percent.

Dimensions: H x W an image, h x w places of the tower, e joint width, C classes, n segments of an image.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from sklearn.cluster import KMeans
from torch import Tensor

from vlmlab.errors import unknown
from vlmlab.studies.experiment import Experiment
from vlmlab.studies.run import construct

MASKS = ("clusters", "true")
NAMES = ("pooled", "true")
CLUSTERS = 6
LEAST = 20
"""Pixels of a connected part of a cluster that count as a segment."""


@dataclasses.dataclass(frozen=True)
class Scenes:
    """Test images of tableau, with what a frozen tower says of their places.

    Attributes:
        words: unit class embeddings [C, e].
        local: unit features of the places [N, e, h, w].
        semantic: class of every pixel [N, H, W], negative where none is known.
        segment: number of the true segment of every pixel [N, H, W], from 0.
        groups: name -> classes: "base" and "new" things, "grounds".
    """

    classes: tuple[str, ...]
    words: Tensor
    local: Tensor
    semantic: Tensor
    segment: Tensor
    groups: Mapping[str, list[int]]


@functools.lru_cache(2)
@torch.no_grad()
def scenes(count: int = 60, backbone: str = "micro-vit-fine") -> Scenes:
    """The first test images of tableau."""
    ready = construct(Experiment("maskclip", "tableau", backbone, 0, 1))
    method, task, tower = ready.prepare(), ready.task, ready.bank.backbone
    test = task.test.subset(range(count))
    images = method.framed([test.images(i) for i in range(count)])[0]
    local = torch.cat([tower.image.local_features(chunk) for chunk in images.split(50)])
    semantic, segment = [], []
    for i in range(count):
        truth = test.truth(i)
        semantic.append(truth.semantic.long())
        # A ground is one segment, numbered by its class behind all objects.
        number = len(truth.instances) + truth.semantic.long().clamp_min(0)
        for n, mask in enumerate(truth.instances):
            number[mask] = n
        segment.append(number)
    grounds = set(task.grounds)
    groups = {
        "base": [c for c in task.base if c not in grounds],
        "new": [c for c in task.new if c not in grounds],
        "grounds": sorted(grounds),
    }
    words = tower.class_embeddings(task.classes, task.templates).float()
    return Scenes(
        tuple(task.classes),
        F.normalize(words, dim=-1),
        F.normalize(local.float(), dim=1),
        torch.stack(semantic),
        torch.stack(segment),
        groups,
    )


def clusters(local: Tensor, size: tuple[int, int], count: int = CLUSTERS, seed: int = 0) -> Tensor:
    """Segments of one image: a number per pixel [H, W], from 0, or -1 where a part is too small to count.

    k-means of its unit local features [e, h, w]; a cluster's connected parts are segments of their own.
    """
    rows = local.flatten(1).T.numpy()
    found = KMeans(count, n_init=2, random_state=seed).fit_predict(rows).reshape(local.shape[1:])
    large = F.interpolate(torch.from_numpy(found)[None, None].float(), size=size, mode="nearest")[0, 0].numpy()
    numbers, total = np.full(size, -1, np.int64), 0
    for cluster in range(count):
        parts, n = ndimage.label(large == cluster)
        area = np.bincount(parts.ravel(), minlength=n + 1)
        for part in range(1, n + 1):
            if area[part] >= LEAST:
                numbers[parts == part] = total
                total += 1
    return torch.from_numpy(numbers)


def named(local: Tensor, segment: Tensor, words: Tensor) -> Tensor:
    """Class of every segment's pixels [H, W] by the mean local feature [e, h, w] under it; -1 where there is no segment."""
    said = torch.full_like(segment, -1)
    for n in segment.unique().tolist():
        if n >= 0:
            inside = F.adaptive_avg_pool2d((segment == n).float()[None, None], local.shape[1:])[0, 0]
            said[segment == n] = int((words @ (local * inside).sum((1, 2))).argmax())
    return said


def truly_named(semantic: Tensor, segment: Tensor) -> Tensor:
    """The class that most pixels of every segment have [H, W]; -1 where there is none."""
    said = torch.full_like(segment, -1)
    for n in segment.unique().tolist():
        own = semantic[segment == n]
        if n >= 0 and bool((own >= 0).any()):
            said[segment == n] = int(own[own >= 0].mode().values)
    return said


def said(found: Scenes, masks: str = "clusters", names: str = "pooled", seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """(class, segment) of every pixel, each [H, W], per image; one segment of a ground, whatever parts it has.

    Raises `VlmlabError` for masks or names that are not in MASKS or NAMES.
    """
    if masks not in MASKS:
        raise unknown("source of masks", masks, MASKS)
    if names not in NAMES:
        raise unknown("source of names", names, NAMES)
    grounds, given = torch.tensor(found.groups["grounds"]), []
    for local, semantic, true in zip(found.local, found.semantic, found.segment, strict=True):
        segment = true if masks == "true" else clusters(local, (true.shape[0], true.shape[1]), seed=seed)
        kind = named(local, segment, found.words) if names == "pooled" else truly_named(semantic, segment)
        given.append((kind, torch.where(torch.isin(kind, grounds), 0, segment + 1)))
    return given


def quality(found: Scenes, given: Sequence[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """PQ in percent of each of the groups, from what `said` gives; the mean over the classes that the images show."""
    from torchmetrics.detection import PanopticQuality

    every = range(len(found.classes))
    measure = PanopticQuality(every, [], allow_unknown_preds_category=True, return_per_class=True)
    for (kind, segment), semantic, true in zip(given, found.semantic, found.segment, strict=True):
        measure.update(torch.stack([kind, segment], -1)[None], torch.stack([semantic, true], -1)[None])
    by_class = 100 * measure.compute().reshape(-1).float()
    shown = set(found.semantic.unique().tolist())
    return {name: float(by_class[[c for c in own if c in shown]].mean()) for name, own in found.groups.items()}
