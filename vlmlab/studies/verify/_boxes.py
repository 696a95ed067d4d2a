"""What the checks of detectors share: a fit on tableau, and its average precision by group."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from vlmlab.learning.evaluate import evaluate
from vlmlab.studies.experiment import Experiment
from vlmlab.studies.run import adapt, some
from vlmlab.studies.table import spread
from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import BACKBONE, SEEDS

TESTED = 235  # test images, five of each class


def detected(system: str, seeds: Sequence[int] = SEEDS, dataset: str = "tableau", **config) -> list[dict[str, float]]:
    """AP50 and ceilings in percent, of each seed."""
    return [_detected(Experiment(system, dataset, BACKBONE, 0, s, "all", tuple(config.items()))) for s in seeds]


@functools.lru_cache(maxsize=256)
def _detected(experiment: Experiment) -> dict[str, float]:
    """Several checks compare with the same runs of ViLD."""
    adapted = adapt(experiment)
    task = adapted.task
    groups = {"base": task.base, "new": task.new}
    measured = evaluate(adapted.method, some(task.test, TESTED), adapted.bank, experiment.seed, groups)
    return {name: value for name, value in measured.items() if not isinstance(value, dict)}


def gain(rows: Sequence[dict], others: Sequence[dict], name: str) -> tuple[float, float]:
    """Mean and deviation over the seeds of what the first have more than the second."""
    return spread([row[name] - other[name] for row, other in zip(rows, others, strict=True)])


def mean_of(rows: Sequence[dict], prefix: str = "", names: Sequence[str] = ("ap50_base", "ap50_new")) -> dict:
    """{prefix + name: mean over the seeds}, to two decimals."""
    return {prefix + name: round(spread([row[name] for row in rows])[0], 2) for name in names}


def verdict(system: str, claim: str, rows: Sequence[dict], others: dict[str, Sequence[dict]], gains: dict) -> Verdict:
    """Holds if every gain {name: (mean, deviation)} is larger than its deviation over the seeds.

    `measured` has the system's AP50, that of each of the `others`, the gains, and the two ceilings of the first seed: where the
    teacher is near chance (2 % of 47 names), or half of the new objects have no proposal, nothing follows from the rest.
    """
    found = mean_of(rows)
    for name, other in others.items():
        found |= mean_of(other, f"{name}_")
    for name, (mean, deviation) in gains.items():
        found |= {f"gain_{name}": round(mean, 2), f"gain_{name}_sd": round(deviation, 2)}
    found |= {name: round(rows[0][name], 2) for name in ("recall_new", "teacher_new")}
    sound = rows[0]["recall_new"] > 50 and rows[0]["teacher_new"] > 10
    return Verdict(system, claim, found, sound and all(mean > deviation for mean, deviation in gains.values()))
