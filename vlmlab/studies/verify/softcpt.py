"""SoftCPT learns related tasks together, and at one shot that is better than a CoOp for each (arXiv 2208.13474, figure 4)."""

from __future__ import annotations

from typing import cast

import torch

from vlmlab.datasets.multi_task import MultiTask
from vlmlab.methods.method import Batch
from vlmlab.studies.experiment import Experiment
from vlmlab.studies.run import adapt
from vlmlab.studies.table import spread
from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import BACKBONE, over_seeds, results

claim = "at one shot, a context made from the task's name and learned with related tasks beats a CoOp for each task"
cause = "the names of MicroWorld's tasks may say little about what their contexts have in common"

TASKS = ("aerial", "textures", "actions", "scenes")
SHOTS, SEEDS = 1, (1, 2, 3, 4, 5, 6)


@torch.no_grad()
def _accuracies(seed: int) -> dict[str, float]:
    """Test accuracy on every task after learning them together, in percent."""
    first, *others = TASKS
    settings = {"companions": ",".join(others)}
    with torch.enable_grad():
        adapted = adapt(Experiment("softcpt", first, BACKBONE, SHOTS, seed, config=settings))
    method, task, bank = adapted.method, cast(MultiTask, adapted.task), adapted.bank
    found = {}
    for one, prompts, context in zip(task.tasks, [method.prompts, *method.others], method.contexts(), strict=True):
        f = method.image_features(Batch(features=bank.features(one.test)))
        best = (f @ method.class_features(prompts, context).T).argmax(1)
        found[one.dataset.name] = 100 * float((best == one.test.labels).float().mean())
    return found


def measure() -> Verdict:
    """aerial, textures, actions and scenes at one shot, six seeds. Holds if the gain over CoOp (of the mean over tasks, seed by
    seed) is larger in the mean than its own deviation over the seeds."""
    joint = [_accuracies(seed) for seed in SEEDS]
    apart = {name: results("coop", name, SHOTS, seeds=SEEDS) for name in TASKS}
    measured: dict[str, float] = {}
    for name in TASKS:
        measured |= {
            name: round(sum(one[name] for one in joint) / len(joint), 2),
            f"{name}_coop": over_seeds(apart[name])[0],
            f"{name}_zero_shot": over_seeds(apart[name], of="zero_shot")[0],
        }
    mean, coop = (sum(measured[f"{name}{of}"] for name in TASKS) / len(TASKS) for of in ("", "_coop"))
    gains = [
        sum(one[name] - apart[name][place]["metrics"]["accuracy"] for name in TASKS) / len(TASKS)
        for place, one in enumerate(joint)
    ]
    gain, deviation = spread(gains)
    measured |= {"mean": round(mean, 2), "mean_coop": round(coop, 2)}
    measured |= {"gain": round(gain, 2), "gain_sd": round(deviation, 2)}
    return Verdict("softcpt", claim, measured, gain > deviation)
