"""One search for every system: the same number of trials, by the same rule, on validation images.

A system that somebody looked at longer looks better than one that nobody did. So settings are searched here by a rule
that knows nothing about the system:

- trial 0 is the setting that the system has now;
- the other trials draw at random (scikit-learn's `ParameterSampler`) the learning rate of a system that learns, log-uniform from
  a tenth to ten times what it is now, and every weight of its own that has two limits and is not zero, log-uniform from a
  quarter to four times, within its limits;
- every trial is measured on all validation images of each dataset, for each seed; test images are not looked at, and the seeds
  are others than those of the measured tables;
- the setting that follows is the best in the mean, if it is better than trial 0 by more than one standard error of their
  paired differences; otherwise trial 0 stays.

A system that chooses a setting by itself on the few validation images of its task (Tip-Adapter's two weights) sees some of these
images; that is the same in all of its trials.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import loguniform
from sklearn.model_selection import ParameterSampler

from vlmlab.errors import VlmlabError, unknown
from vlmlab.learning.metrics import main_metric
from vlmlab.methods.method import Recipe
from vlmlab.registry import load_system
from vlmlab.studies.experiment import Experiment
from vlmlab.studies.run import shared_bank
from vlmlab.studies.store import ResultStore
from vlmlab.studies.sweep import Outcome, sweep

TRIALS = 8
SEEDS = (11, 12, 13)
RATE_FACTOR, WEIGHT_FACTOR = 10.0, 4.0


@dataclasses.dataclass
class Trial:
    """One setting and what it reached.

    Attributes:
        settings: what differs from the system's own settings; nothing for trial 0.
        values: [dataset, seed] main metric on the validation images, in percent.
        gain: mean difference to trial 0 over datasets and seeds, in percentage points.
        error: standard error of that mean, from the paired differences.
    """

    number: int
    settings: dict[str, float]
    values: np.ndarray
    gain: float = 0.0
    error: float = 0.0

    def row(self) -> dict:
        """The trial as a line of a table."""
        return {
            "trial": self.number,
            "settings": ", ".join(f"{name}={value:g}" for name, value in self.settings.items()) or "as they are",
            "mean": round(float(self.values.mean()), 2),
            "gain": round(self.gain, 2),
            "standard_error": round(self.error, 2),
        }


def space(system: str, backbone: object, names: Sequence[str] = ()) -> dict[str, tuple[float, float]]:
    """Setting -> the range (low, high) that trials draw it from, for `names` or by the rule above.

    `backbone` has the attribute `embedded`, by which a system's present settings follow. Raises `VlmlabError` for a name
    that is no real-valued setting of the system with a value above zero, and if there is nothing to search.
    """
    config = load_system(system).configure(backbone)
    recipe = {field.name for field in dataclasses.fields(Recipe)}
    ranges: dict[str, tuple[float, float]] = {}
    for field in dataclasses.fields(config):
        value, low, high = getattr(config, field.name), field.metadata.get("low"), field.metadata.get("high")
        if type(value) is not float or value <= 0 or low is None or high is None:
            continue
        if field.name == "lr" or field.name not in recipe or field.name in names:
            factor = RATE_FACTOR if field.name == "lr" else WEIGHT_FACTOR
            ranges[field.name] = (max(low, value / factor), min(high, value * factor))
    for name in names:
        if name not in ranges:
            raise unknown(f"setting of {system} that can be searched", name, ranges)
    ranges = {name: ranges[name] for name in names} if names else ranges
    ranges = {name: (low, high) for name, (low, high) in ranges.items() if 0 < low < high}
    if not ranges:
        raise VlmlabError(f"{system} has no learning rate and no weight to search; its settings stay as they are")
    return ranges


def drawn(ranges: dict[str, tuple[float, float]], trials: int, seed: int = 0) -> list[dict[str, float]]:
    """The settings of `trials` trials: none for the first, the others log-uniform in their ranges, three digits each."""
    if trials < 2:
        raise VlmlabError(f"a search needs two trials or more, of which the first is the present setting, not {trials}")
    sampler = ParameterSampler(
        {name: loguniform(*limits) for name, limits in ranges.items()}, trials - 1, random_state=seed
    )
    rounded = [{name: float(f"{value:.3g}") for name, value in sorted(one.items())} for one in sampler]
    return [{}, *rounded]


def tune(
    system: str,
    datasets: Sequence[str],
    store: ResultStore,
    backbone: str = "micro-vit",
    shots: int = 4,
    split: str = "all",
    trials: int = TRIALS,
    seeds: Sequence[int] = SEEDS,
    names: Sequence[str] = (),
    workers: int | None = None,
    on_outcome: Callable[[Outcome], None] | None = None,
) -> tuple[list[Trial], int]:
    """Search the settings of one system.

    Args:
        store: where every measurement is kept; a search that was stopped goes on where it was.
        split: as of `Experiment`, but for shift.
        names: the settings to search; by the rule of this module if none are given.
        workers: as for `sweep`.

    Returns the trials, and the number of the one whose setting should be the system's.
    Raises `VlmlabError` as `space`, `drawn` and `sweep` do, and if an experiment of the search failed.
    """
    settings = drawn(space(system, shared_bank(backbone).backbone, names), trials)
    experiments = [
        Experiment(system, name, backbone, shots, seed, split, tuple(one.items()), validation=True)
        for one in settings
        for name in datasets
        for seed in seeds
    ]
    outcomes = sweep(experiments, store, workers, on_outcome=on_outcome)
    for outcome in outcomes:
        if outcome.result is None:
            raise VlmlabError(f"{outcome.experiment}: {outcome.failure}")
    mains = [o.result["metrics"][main_metric(o.result["metrics"])] for o in outcomes if o.result]
    values = np.asarray(mains).reshape(trials, len(datasets), len(seeds))
    found = [Trial(n, one, values[n]) for n, one in enumerate(settings)]
    for trial in found[1:]:
        differences = (trial.values - found[0].values).ravel()
        trial.gain = float(differences.mean())
        trial.error = float(differences.std(ddof=1) / math.sqrt(len(differences))) if len(differences) > 1 else math.inf
    best = max(found, key=lambda trial: trial.gain)
    return found, best.number if best.gain > best.error else 0


def as_log(system: str, trials: Sequence[Trial], chosen: int, **how: object) -> str:
    """The search as JSON text for data/measured/tuning: everything that it drew and measured."""
    lines = [{"settings": trial.settings, "values": trial.values.round(4).tolist()} for trial in trials]
    return json.dumps({"system": system, **how, "trials": lines, "chosen": chosen}, indent=1) + "\n"
