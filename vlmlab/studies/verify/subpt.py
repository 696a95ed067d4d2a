"""SubPT's accuracy does not bend down late in training as CoOp's does (arXiv 2211.02219, figure 1)."""

from __future__ import annotations

import torch

from vlmlab.methods.method import Batch
from vlmlab.studies.experiment import Experiment
from vlmlab.studies.run import construct
from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import BACKBONE, SEEDS

claim = "from its best moment to the end of training, SubPT loses less accuracy than CoOp"


def _curve(key: str, seed: int) -> list[float]:
    """Test accuracy after every fifth epoch of a long fit, in percent; looked at, never chosen from."""
    ready = construct(Experiment(key, "textures", BACKBONE, 4, seed, config={"epochs": 150}))
    method, test = ready.method, ready.task.test
    features, labels, curve = ready.bank.features(test), test.labels, []

    @torch.no_grad()
    def on_step(done: int, steps: int, loss: float) -> None:
        if done % max(1, steps // 30) == 0:
            curve.append(100 * float((method.logits(Batch(features=features)).argmax(1) == labels).float().mean()))

    ready.learn(on_step)
    return curve


def measure() -> Verdict:
    """textures, 4 shots, 150 epochs, three seeds; the fall is the highest accuracy minus the last, mean over seeds."""
    measured = {}
    for key in ("coop", "subpt"):
        curves = [_curve(key, seed) for seed in SEEDS]
        measured[f"{key}_fall"] = round(sum(max(c) - c[-1] for c in curves) / len(curves), 2)
        measured[f"{key}_last"] = round(sum(c[-1] for c in curves) / len(curves), 2)
    return Verdict("subpt", claim, measured, measured["subpt_fall"] < measured["coop_fall"])
