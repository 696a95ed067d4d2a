"""What the checks share: run an experiment for several seeds and collect one figure."""

from __future__ import annotations

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
    return [run_experiment(Experiment(system, dataset, BACKBONE, shots, s, split, settings)) for s in seeds]


def over_seeds(rows: Sequence[dict], metric: str = "accuracy", of: str = "metrics") -> tuple[float, float]:
    """Mean and standard deviation of one figure, in percent, to two decimals."""
    mean, deviation = spread([row[of][metric] for row in rows])
    return round(mean, 2), round(deviation, 2)
