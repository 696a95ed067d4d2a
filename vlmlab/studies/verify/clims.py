"""CLIMS: a CAM network without what always comes along (arXiv 2203.02668)."""

from __future__ import annotations

import torch

from vlmlab.datasets.tableaux import GROUNDS
from vlmlab.datasets.task import Task
from vlmlab.learning.fit import fit
from vlmlab.methods.dense.cam_student import cam_miou
from vlmlab.methods.segmentation.clims import CLIMS
from vlmlab.studies.run import dataset_for, shared_bank, some
from vlmlab.studies.table import spread
from vlmlab.studies.verify import Verdict, judged
from vlmlab.studies.verify._measure import BACKBONE, SEEDS

claim = (
    "its maps have less of the ground that a thing always stands on than the class activation maps that it starts from"
)
PICTURES = 200


def measure() -> Verdict:
    """tableau-paired with its stuff, three seeds, about 200 test images whose labels are given; no student is taught.

    `spill` is the area of ground that is given to things of one ground alone, in percent of the area of these things; `miou` that
    of the maps, things and ground. The threshold is chosen on validation images, for each network its own. Holds if spill falls,
    in the mean, by more than its deviation over the seeds.
    """
    rows = [_measured(seed) for seed in SEEDS]
    found = {name: round(spread([row[name] for row in rows])[0], 2) for name in rows[0]}
    return judged("clims", claim, found, [row["spill_cam"] - row["spill"] for row in rows])


def _measured(seed: int) -> dict[str, float]:
    bank = shared_bank(BACKBONE)
    task = Task(bank.backbone, dataset_for(bank, "tableau-paired", with_stuff=True), 0, seed)
    method = CLIMS(bank.backbone, CLIMS.configure(bank.backbone))
    config, done, seen = method.config, [], task.seen_by(method.info.setup)
    fit(
        method, seen, lambda *step: done.append(step),
        lambda: len(done) == method.batches * (config.cam_epochs + config.epochs), bank=bank,
    )  # fmt: skip
    test, found = some(task.test, PICTURES), {}
    truth = method.truth_of(test)
    bound = torch.tensor([name in GROUNDS for name in method.classes] + [False])
    others = ~bound
    others[[*method.grounds, -1]] = False
    for name, refined in (("", True), ("_cam", False)):
        measured = cam_miou(method, seen.val, test, refined)
        scores, names = method.scored(test, refined)
        called = torch.where(scores > measured["threshold"], names, len(method.classes))
        found |= {f"{part}{name}": measured[key] for part, key in (("miou", "validation"), ("miou_oracle", "oracle"))}
        for part, things in (("spill", bound), ("spill_others", others)):
            on_ground = (truth == len(method.classes)) & things[called]
            own = (truth >= 0) & things[truth.clamp_min(0)]
            found[f"{part}{name}"] = 100 * float(on_ground.sum() / own.sum().clamp_min(1))
    return found
