"""What the checks share: run an experiment for several seeds and collect one figure."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from vlmlab.studies.experiment import Experiment
from vlmlab.studies.run import run_experiment
from vlmlab.views.charts import spread

BACKBONE = "micro-vit"
SEEDS = (1, 2, 3)


def results(
    system: str, dataset: str, shots: int = 16, split: str = "all", seeds: Sequence[int] = SEEDS, **config
) -> list[dict]:
    """The result of each seed, as `vlmlab run --json` prints it."""
    settings = tuple(config.items())
    return [_result(Experiment(system, dataset, BACKBONE, shots, s, split, settings)) for s in seeds]


@functools.lru_cache(maxsize=1024)
def _result(experiment: Experiment) -> dict:
    """Several checks compare with the same runs of CoOp."""
    return run_experiment(experiment)


def over_seeds(rows: Sequence[dict], metric: str = "accuracy", of: str = "metrics") -> tuple[float, float]:
    """Mean and standard deviation of one figure, in percent, to two decimals."""
    mean, deviation = spread([row[of][metric] for row in rows])
    return round(mean, 2), round(deviation, 2)


def against_coop(system: str, dataset: str, shots: int = 16) -> dict[str, float]:
    """Base and new accuracy of a system beside CoOp's and zero-shot's, means over the seeds with deviations."""
    measured: dict[str, float] = {}
    for key in (system, "coop"):
        rows = results(key, dataset, shots, split="base")
        prefix = "" if key == system else "coop_"
        for part in ("base", "new"):
            measured[f"{prefix}{part}"], measured[f"{prefix}{part}_sd"] = over_seeds(rows, part)
            measured[f"zero_shot_{part}"] = over_seeds(rows, part, "zero_shot")[0]
    return measured


def gain(system: str, dataset: str, shots: int = 16, seeds: Sequence[int] = SEEDS, **config) -> tuple[float, float]:
    """(accuracy, accuracy minus zero-shot), means over the seeds, in percent."""
    rows = results(system, dataset, shots, seeds=seeds, **config)
    own, zero = over_seeds(rows)[0], over_seeds(rows, of="zero_shot")[0]
    return own, round(own - zero, 2)
