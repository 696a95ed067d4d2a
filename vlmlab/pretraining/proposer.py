"""`vlmlab build proposer`: the small class-agnostic proposer of the two-stage detectors, from boxes of base classes only.

Scenes are MicroWorld's, composed as tableau's are but from keys of their own, so that none is one of tableau's. Objects of
novel categories stand in them, and have no box: where they are, the proposer is told that there is nothing. It learns

    first  : cross-entropy of objectness (32 anchors with IoU >= 0.6, 32 and more with IoU < 0.3) + smooth L1 of the deltas
    second : smooth L1 of the refinement + cross-entropy of a text classifier of base names, which is thrown away:
             it makes the map tell objects apart (this is ViLD-text, end to end)

Dimensions: B images, G = 4 objects at most, A anchors, n regions of an image, C base classes, e joint width.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from vlmlab.files import data_path, write_atomically
from vlmlab.methods.dense.boxes import iou, to_deltas
from vlmlab.methods.dense.proposals import Proposer
from vlmlab.methods.dense.roi_head import RegionHead
from vlmlab.methods.method import rate_by_step
from vlmlab.randomness import LocalRandom

SCENES, STEPS, BATCH, REGIONS = 1200, 400, 16, 24
RATE, DECAY, SLOTS = 2e-3, 1e-2, 4


def draw(count: int, side: int) -> tuple[Tensor, Tensor, Tensor, list[str]]:
    """(pixels [N, 3, S, S] uint8, boxes [N, 4, 4], base class [N, 4] or -1 where there is none, names of base classes)."""
    from vlmlab.datasets.microworld import deal, generator
    from vlmlab.world.objects import KNOWN, NOVEL
    from vlmlab.world.painter import render
    from vlmlab.world.scene import sample_scene

    names = tuple(sorted(KNOWN))
    base = [name for name in names if name not in NOVEL]
    pixels = np.zeros((count, side, side, 3), np.uint8)
    boxes, labels = np.zeros((count, SLOTS, 4), np.float32), np.full((count, SLOTS), -1)
    for i, cast in enumerate(deal(names, count, generator("proposer", 0))):
        scene = sample_scene(generator(f"proposer/{i}", 0), categories=cast, style="photo")
        painted = render(scene, side)
        pixels[i] = painted.pixels
        for k, box in enumerate(painted.boxes):
            if cast[k] not in NOVEL and box[2] > box[0] + 1 and box[3] > box[1] + 1:
                boxes[i, k], labels[i, k] = box, base.index(cast[k])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.from_numpy(boxes), torch.from_numpy(labels), base


def first_loss(proposer: Proposer, logits: Tensor, deltas: Tensor, boxes: Tensor, there: Tensor) -> Tensor:
    """Loss of the anchors: logits [B, A], deltas [B, A, 4], boxes [B, G, 4] of which `there` [B, G] are some."""
    overlap = iou(proposer.anchors, boxes) * there[:, None]  # [B, A, G]
    best, which = overlap.max(-1)
    # The best anchor of an object that none covers well is its anchor all the same.
    rescued = ((overlap == overlap.amax(1, keepdim=True)) & (overlap > 0.3) & there[:, None]).any(-1)
    positive = (best >= 0.6) | rescued
    negative = (best < 0.3) & ~positive
    target = boxes.gather(1, which[..., None].expand(-1, -1, 4))
    anchors = proposer.anchors.expand(len(boxes), -1, -1)
    places = F.smooth_l1_loss(deltas[positive], to_deltas(anchors[positive], target[positive]))
    some = _some(positive, torch.full((len(boxes), 1), 32))
    some |= _some(negative, 64 - some.sum(1, keepdim=True))
    return F.binary_cross_entropy_with_logits(logits[some], positive[some].float()) + places


def _some(mask: Tensor, most: Tensor) -> Tensor:
    """At most so many [B, 1] of each row of a mask [B, A], drawn at random."""
    order = torch.where(mask, torch.rand(mask.shape), -1.0).argsort(1, descending=True).argsort(1)
    return mask & (order < most)


def train(steps: int = STEPS, scenes: int = SCENES, seed: int = 0) -> Proposer:
    """A proposer, trained; the same for the same arguments on the same machine."""
    from vlmlab.backbones import load_backbone

    backbone = load_backbone("micro-vit", "cpu")
    with LocalRandom(seed):
        proposer = Proposer()
        pixels, boxes, labels, names = draw(scenes, proposer.side)
        text = backbone.class_embeddings(names, ["a photo of a {}."])
        classifier = RegionHead(proposer.second[0].in_features, text.shape[1])
        nothing = nn.Parameter(0.01 * torch.randn(text.shape[1]))
        parameters = [*proposer.parameters(), *classifier.parameters(), nothing]
        optimizer = torch.optim.AdamW(parameters, 1.0, weight_decay=DECAY)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: rate_by_step(k, steps, RATE, steps // 10))
        order = torch.cat([torch.randperm(scenes) for _ in range(steps * BATCH // scenes + 1)])
        for step in range(steps):
            chosen = order[step * BATCH : (step + 1) * BATCH]
            images, own, kind = pixels[chosen].float() / 255, boxes[chosen].clone(), labels[chosen]
            flip = torch.rand(BATCH) < 0.5
            images = torch.where(flip[:, None, None, None], images.flip(3), images)
            turned = torch.stack(
                [proposer.side - own[..., 2], own[..., 1], proposer.side - own[..., 0], own[..., 3]], -1
            )
            own = torch.where(flip[:, None, None], turned, own)
            maps = proposer.maps(images)
            logits, deltas = proposer.anchor_scores(maps)
            loss = first_loss(proposer, logits, deltas, own, kind >= 0)
            found = proposer.first_boxes(logits, deltas, REGIONS, 0.7)
            regions, there = torch.cat([found.boxes, own], 1), torch.cat([found.there, kind >= 0], 1)
            best, which = (iou(regions, own) * (kind >= 0)[:, None]).max(-1)
            met = (best >= 0.5) & there
            features = proposer.regions(maps, regions)
            goal = to_deltas(regions, own.gather(1, which[..., None].expand(-1, -1, 4)))
            loss = loss + F.smooth_l1_loss(proposer.second(features[met]), goal[met])
            named = torch.where(met, kind.gather(1, which), len(names))
            words = torch.cat([text, F.normalize(nothing, dim=0)[None]])
            scores = backbone.logit_scale * F.normalize(classifier(features[there]), dim=-1) @ words.T
            loss = loss + F.cross_entropy(scores, named[there])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return proposer.requires_grad_(False).eval()


def build(steps: int = STEPS) -> Path:
    """Train the proposer and write it, with its card, into data/proposer; returns the file of the weights."""
    proposer = train(steps)
    # Counts of batches are integers that nothing reads in evaluation.
    state = {k: v.half().contiguous() for k, v in proposer.state_dict().items() if v.is_floating_point()}
    content = save(state)
    digest = hashlib.sha256(content).hexdigest()
    card = {
        "what": "class-agnostic proposer of the two-stage detectors",
        "learned_from": f"{SCENES} scenes of MicroWorld (photo style, composed as tableau's, keys of their own); boxes and "
        "names of base categories only, novel objects stand unlabelled in the scenes",
        "steps": steps,
        "seed": 0,
        "parameters": sum(p.numel() for p in proposer.parameters()),
        "numbers": "float16",
        "sha256": digest,
        "made_by": "vlmlab build proposer",
    }
    write_atomically(data_path("proposer", "proposer.json"), json.dumps(card, indent=1) + "\n")
    return write_atomically(data_path("proposer", "proposer.safetensors"), content)
