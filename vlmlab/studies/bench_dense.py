"""What it is worth, in dense prediction, to ask the frozen networks about each training image once.

Both sides of a ratio are an epoch of the same system on the same images, in one run: from what is cached, and with proposals,
crops or tokens computed again for every batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

from vlmlab.backbones import load_backbone
from vlmlab.datasets import Task, load_dataset
from vlmlab.methods.dense.pixels import Frozen
from vlmlab.methods.dense.regions import RegionBank
from vlmlab.methods.detection.vild import ViLD
from vlmlab.methods.method import Batch, Method
from vlmlab.methods.segmentation.lseg import LSeg
from vlmlab.randomness import LocalRandom
from vlmlab.studies.measurement import Measurement, seconds_of

IMAGES, AT_ONCE, SEED = 64, 16, 0


def cached_regions() -> Measurement:
    """An epoch of ViLD: regions of the training images cached, against proposals and crops encoded for every batch."""
    method, task = _prepared(ViLD)
    kept, batches = method.regions, torch.arange(len(task.train)).split(AT_ONCE)
    config = method.config
    scales = [float(scale) for scale in config.crop_scales.split()]
    asked = RegionBank(method.backbone, config.proposals, scales, config.crop_shape, disk=False)

    def loss(index: torch.Tensor, cached: bool) -> torch.Tensor:
        truths = [task.train.truth(i) for i in index.tolist()]
        if not cached:
            images, _ = method.framed([task.train.images(i) for i in index.tolist()])
            method.regions = asked.find(images, crops=True)
            return method.loss(Batch(index=torch.arange(len(index)), truths=truths))
        method.regions = kept
        return method.loss(Batch(index=index, truths=truths))

    crops = f"{config.proposals} proposals each, crops at {len(scales)} scale{'s' * (len(scales) > 1)}"
    return _measured(method, batches, loss, f"ViLD on tableau, {len(task.train)} images, {crops}")


def cached_tokens() -> Measurement:
    """An epoch of LSeg: tokens of the frozen tower cached, against the tower asked for every batch."""
    method, task = _prepared(LSeg, with_stuff=True)
    batches = torch.arange(len(task.train)).split(AT_ONCE)
    framed = {}
    for index in batches:
        images, frames = method.framed([task.train.images(i) for i in index.tolist()])
        truths = [frame.truth(task.train.truth(i)) for frame, i in zip(frames, index.tolist(), strict=True)]
        framed[int(index[0])] = images, torch.stack([truth.semantic.long() for truth in truths])
    cached = method.frozen
    again = Frozen(method, task.train, method.read, most=0)  # as of a set whose tokens do not fit into memory

    def loss(index: torch.Tensor, from_cache: bool) -> torch.Tensor:
        method.frozen = cached if from_cache else again
        images, masks = framed[int(index[0])]
        return method.loss(Batch(images=images, masks=masks, index=index))

    return _measured(method, batches, loss, f"LSeg on tableau, {len(task.train)} images, tokens of two layers")


def _prepared(kind: type[Method], with_stuff: bool = False) -> tuple[Method, Task]:
    """A system, and a task of a few training images that it has been prepared for."""
    backbone, dataset = load_backbone("micro-vit"), load_dataset("tableau")
    dataset = dataset.with_stuff() if with_stuff else dataset
    few = dataclasses.replace(dataset, train=dataset.train.subset(range(min(IMAGES, len(dataset.train)))))
    task = Task(backbone, few, 0, SEED).seen_by(kind.info.setup)
    method = kind(backbone)
    with LocalRandom(SEED):
        method.prepare(task)
    return method, task


def _measured(
    method: Method, batches: tuple[torch.Tensor, ...], loss: Callable[[torch.Tensor, bool], torch.Tensor], note: str
) -> Measurement:
    """Seconds of an epoch on both ways, and how far apart their losses are."""

    def epoch(cached: bool) -> float:
        total = 0.0
        with LocalRandom(SEED):
            for index in batches:
                value = loss(index, cached)
                value.backward()
                total += float(value.detach()) / len(batches)
        return total

    one, other = epoch(True), epoch(False)
    value, baseline = seconds_of(lambda: epoch(True), 5), seconds_of(lambda: epoch(False), 3)
    apart = f"losses differ by {abs(one - other) / abs(other):.1e} of their size (what is cached has half precision)"
    return Measurement(value, "s per epoch", baseline, baseline / value, f"{note}; {apart}")
