"""OADP: an object is read by a token of its own, in a crop that is not distorted (arXiv 2303.05892)."""

from __future__ import annotations

import dataclasses

import torch

from vlmlab.datasets.task import Task
from vlmlab.methods.dense.boxes import side_by_side
from vlmlab.methods.dense.crops import crop_embeddings
from vlmlab.methods.detection.oadp import OADP, object_embeddings
from vlmlab.studies.run import dataset_for, shared_bank, some
from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._boxes import TESTED, detected, gains, verdict
from vlmlab.studies.verify._measure import BACKBONE

LONG = 1.5  # one side over the other, from which an object is elongated
claim = (
    "a masked token in a roomy crop names elongated objects that a crop stretched to a square distorts, and a student of it finds "
    "more new objects"
)


def measure() -> Verdict:
    """tableau, three seeds, 235 test images, all 47 names at once; AP50 in percent.

    `stretched` is ViLD's ensemble, whose second head learns from stretched crops; the system learns from objects alone here, so that
    little but the teacher differs. Holds if on new classes its gain is larger than its deviation over the seeds, and the
    token names more of the elongated true boxes right than the stretched crop. `token_`, `stretched_crop_` and `square_crop_` are
    how many true boxes each teacher names right, in percent of new and of elongated objects; `cluttered_` the same in
    tableau-cluttered, where elongated objects are drawn stretched, which a stretched crop undoes.
    """
    rows = detected("oadp", blocks=0.0, whole=0.0)
    stretched = detected("vild", head="ensemble", crop_shape="stretched")
    named = teachers("tableau") | {f"cluttered_{key}": value for key, value in teachers("tableau-cluttered").items()}
    found = verdict("oadp", claim, rows, {"stretched": stretched}, {"new": gains(rows, stretched)})
    holds = found.holds and named["token_elongated"] > named["stretched_crop_elongated"]
    return dataclasses.replace(found, measured=found.measured | named, holds=holds)


@torch.no_grad()
def teachers(dataset: str) -> dict[str, float]:
    """Percent of the true boxes of test images that each teacher names right, "<teacher>_<group>"; nothing is learned."""
    bank = shared_bank(BACKBONE)
    backbone = bank.backbone
    task = Task(backbone, dataset_for(bank, dataset), 0, 0)
    method = OADP(backbone, OADP.configure(backbone))
    method.set_classes(task.classes, task.templates)
    pictures, config, new = some(task.test, TESTED), method.config, torch.tensor(task.new)
    counts: dict[str, list[torch.Tensor]] = {}
    for start in range(0, len(pictures), 64):
        positions = range(start, min(start + 64, len(pictures)))
        images, frames = method.framed([pictures.images(i) for i in positions])
        truths = [frame.truth(pictures.truth(i)) for i, frame in zip(positions, frames, strict=True)]
        padded = side_by_side([truth.boxes.to(images.device) for truth in truths])
        seen = {
            "token": object_embeddings(backbone, images, padded, config.expand, config.finer),
            "stretched_crop": crop_embeddings(backbone, images, padded, (1.0,), "stretched"),
            "square_crop": crop_embeddings(backbone, images, padded, (1.2,), "square"),
        }
        labels, boxes = torch.cat([truth.labels for truth in truths]), torch.cat([truth.boxes for truth in truths])
        size = boxes[:, 2:] - boxes[:, :2]
        groups = {"new": torch.isin(labels, new), "elongated": size.amax(1) > LONG * size.amin(1)}
        for name, embeddings in seen.items():
            named = [(own[: len(t)] @ method.text.T).argmax(1).cpu() for own, t in zip(embeddings, truths, strict=True)]
            right = torch.cat(named) == labels
            for group, of in groups.items():
                counts.setdefault(f"{name}_{group}", []).append(right[of])
    return {name: round(100 * float(torch.cat(rows).float().mean()), 2) for name, rows in counts.items()}
