"""SubPT's accuracy does not bend down late in training as CoOp's does (arXiv 2211.02219, figure 1)."""

from __future__ import annotations

import torch

from vlmlab.datasets import Task
from vlmlab.learning.fit import fit
from vlmlab.methods.method import Batch
from vlmlab.registry import load_system
from vlmlab.studies.run import shared_bank, shared_dataset
from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import BACKBONE, SEEDS

claim = "from its best moment to the end of training, SubPT loses less accuracy than CoOp"


def _curve(key: str, seed: int) -> list[float]:
    """Test accuracy after every fifth epoch of a long fit, in percent; looked at, never chosen from."""
    bank = shared_bank(BACKBONE)
    system = load_system(key)
    method = system(bank.backbone, system.configure(bank.backbone, epochs=150))
    task = Task(bank.backbone, shared_dataset("textures"), 4, seed)
    features, labels, curve = bank.features(task.test), task.test.labels, []

    @torch.no_grad()
    def on_step(done: int, steps: int, loss: float) -> None:
        if done % max(1, steps // 30) == 0:
            curve.append(100 * float((method.logits(Batch(features=features)).argmax(1) == labels).float().mean()))

    fit(method, task.seen_by("few-shot"), on_step, bank=bank)
    return curve


def measure() -> Verdict:
    """textures, 4 shots, 150 epochs, three seeds; the fall is the highest accuracy minus the last, mean over seeds."""
    measured = {}
    for key in ("coop", "subpt"):
        curves = [_curve(key, seed) for seed in SEEDS]
        measured[f"{key}_fall"] = round(sum(max(c) - c[-1] for c in curves) / len(curves), 2)
        measured[f"{key}_last"] = round(sum(c[-1] for c in curves) / len(curves), 2)
    return Verdict("subpt", claim, measured, measured["subpt_fall"] < measured["coop_fall"])
