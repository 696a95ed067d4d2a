"""SSIW: rough maps of names, better by views, better by the image's own colours (arXiv 2112.03185)."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F

from vlmlab.datasets.microworld import load_microworld
from vlmlab.methods.dense.cam import cam_iou
from vlmlab.methods.segmentation.ssiw import SSIW, STEPS
from vlmlab.studies.run import shared_bank, some
from vlmlab.studies.table import spread
from vlmlab.studies.verify import Verdict, judged
from vlmlab.studies.verify._measure import BACKBONE, SEEDS

claim = "views of an image make the maps of its names better, and segmenting the single image makes them better again"
PICTURES = 150


def measure() -> Verdict:
    """Mean IoU in percent of about 150 test images whose names, stuff among them, are given; three draws of tableau, nothing else
    is random. Holds if both steps, draw by draw, have a mean larger than its deviation.
    """
    rows = [_measured(seed) for seed in SEEDS]
    found = {step: round(spread([row[step] for row in rows])[0], 2) for step in STEPS}
    steps = itertools.pairwise(STEPS)
    return judged("ssiw", claim, found, {after: [row[after] - row[before] for row in rows] for before, after in steps})


def _measured(seed: int) -> dict[str, float]:
    backbone = shared_bank(BACKBONE).backbone
    dataset = load_microworld("tableau", backbone.image_size, seed).with_stuff()
    method = SSIW(backbone)
    method.set_classes(dataset.classes, dataset.templates)
    test, called = some(dataset.test, PICTURES), {step: [] for step in STEPS}
    truth = []
    for at, images, frames in method.framed_in_turn(test):
        shown = (test.labels[at.start : at.stop] > 0).to(images.device)
        truth += [frame.truth(test.truth(i)).semantic.long() for frame, i in zip(frames, at, strict=True)]
        for step in STEPS:
            maps = method.maps_of(images, shown, step).masked_fill(~shown[..., None, None], -1.0)
            called[step].append(F.interpolate(maps, images.shape[-2:], mode="bilinear").argmax(1).cpu())
    known, count = torch.stack(truth), len(dataset.classes)
    return {step: cam_iou(torch.ones(known.shape), torch.cat(rows), known, 0.0, count) for step, rows in called.items()}
