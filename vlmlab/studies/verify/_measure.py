"""What the checks share: run an experiment for several seeds and collect one metric."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from vlmlab.studies.experiment import Experiment
from vlmlab.studies.run import run_experiment
from vlmlab.studies.store import ResultStore
from vlmlab.studies.table import spread
from vlmlab.studies.verify import store_of_checks

BACKBONE = "micro-vit"
SEEDS = (1, 2, 3)


def results(
    system: str,
    dataset: str,
    shots: int = 16,
    split: str = "all",
    seeds: Sequence[int] = SEEDS,
    test_pictures: int = 0,
    **config,
) -> list[dict]:
    """The result of each seed, as `vlmlab run --json` prints it; `test_pictures` as an `Experiment` has it."""
    settings = tuple(config.items())
    asked = (
        Experiment(system, dataset, BACKBONE, shots, s, split, settings, test_pictures=test_pictures) for s in seeds
    )
    return [_result(experiment, store_of_checks.get()) for experiment in asked]


@functools.lru_cache(maxsize=1024)
def _result(experiment: Experiment, store: ResultStore | None) -> dict:
    """Several checks compare with the same runs of CoOp."""
    found = None if store is None else store.get(experiment)
    if found is None:
        found = run_experiment(experiment)
        if store is not None:
            store.add(experiment, found)
    return found


def over_seeds(rows: Sequence[dict], metric: str = "accuracy", of: str = "metrics") -> tuple[float, float]:
    """Mean and standard deviation of one metric, in percent, to two decimals."""
    mean, deviation = spread([row[of][metric] for row in rows])
    return round(mean, 2), round(deviation, 2)


BASE_TO_NEW = ("aerial", "textures")
"""Where checks of new classes look: zero-shot leaves room there, and a fit takes seconds."""


def base_to_new(system: str, seeds: Sequence[int] = SEEDS, **config) -> dict[str, float]:
    """Accuracy on base and new classes and their harmonic mean, in percent, of the system and of zero-shot.

    16 shots of the base half of every dataset of BASE_TO_NEW; means over the datasets and seeds, and the standard
    deviation over seeds (of the mean over datasets).
    """
    runs = [results(system, name, 16, "base", seeds, **config) for name in BASE_TO_NEW]
    measured: dict[str, float] = {}
    for part in ("base", "new", "harmonic_mean"):
        per_seed = [sum(rows[s]["metrics"][part] for rows in runs) / len(runs) for s in range(len(seeds))]
        zero = [sum(rows[s]["zero_shot"][part] for rows in runs) / len(runs) for s in range(len(seeds))]
        mean, deviation = spread(per_seed)
        measured |= {part: round(mean, 2), f"{part}_sd": round(deviation, 2), f"zero_shot_{part}": round(zero[0], 2)}
    return measured


def against_coop(system: str) -> dict[str, float]:
    """`base_to_new` of a system, with CoOp's beside it: from the same words, which is the CoOp of the papers that learn on
    half of the classes (its settings of this protocol), and from noise."""
    words, noise = base_to_new("coop"), base_to_new("coop", init="")
    measured = base_to_new(system)
    for name, coop in (("coop", words), ("noise_coop", noise)):
        measured |= {f"{name}_{part}": coop[part] for part in ("base", "new", "new_sd")}
    return measured


def gain(system: str, dataset: str, shots: int = 16, seeds: Sequence[int] = SEEDS, **config) -> tuple[float, float]:
    """(accuracy, accuracy minus zero-shot), means over the seeds, in percent."""
    rows = results(system, dataset, shots, seeds=seeds, **config)
    own, zero = over_seeds(rows)[0], over_seeds(rows, of="zero_shot")[0]
    return own, round(own - zero, 2)
