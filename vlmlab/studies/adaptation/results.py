"""The results of a report, from the store or measured now, and their record as JSON."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Sequence
from pathlib import Path

from vlmlab.errors import VlmlabError
from vlmlab.files import write_atomically
from vlmlab.learning.metrics import of_group
from vlmlab.registry import registry
from vlmlab.studies.adaptation.photos import Photographs
from vlmlab.studies.adaptation.plan import Plan
from vlmlab.studies.experiment import Experiment
from vlmlab.studies.store import ResultStore
from vlmlab.studies.sweep import MeasuredAgain, sweep

MOST_IN_A_CHART = 8
"""Lines that one can tell apart; with more systems there is a chart per family."""


@dataclasses.dataclass
class Results:
    """Results as `vlmlab run --json` prints them, the one-line reasons of what failed, and those of measuring again."""

    few_shot: list[dict]
    base_new: list[dict]
    failures: list[str]
    again: list[str] = dataclasses.field(default_factory=list)


def run(plan: Plan) -> Results:
    """Run what is not in the store yet.

    Raises `VlmlabError` if nothing at all succeeded (the first reason).
    """
    few, base = plan.experiments()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MeasuredAgain)  # the summary says it
        outcomes = sweep([*few, *base], ResultStore(plan.store), workers=plan.workers, download=plan.download)
    failures = _reasons([(o.experiment, o.failure) for o in outcomes if o.failure])
    done = [o.result for o in outcomes[: len(few)] if o.result]
    if not done:
        raise VlmlabError(failures[0] if failures else "the report has no system, dataset, shots or seed to run")
    dense = [result for result in done if "new" not in result["metrics"]]  # base and new apart, on all classes at once
    split = [o.result for o in outcomes[len(few) :] if o.result]
    new = [result for result in [*split, *dense] if of_group(result["metrics"], "new") is not None]
    return Results(done, new, failures, list(dict.fromkeys(o.changed for o in outcomes if o.changed)))


def _reasons(failed: Sequence[tuple[Experiment, str]]) -> list[str]:
    """One line per system and reason, because a backbone that cannot carry a system says so for every run."""
    groups: dict[tuple[str, str], list[Experiment]] = {}
    for experiment, reason in failed:
        groups.setdefault((experiment.system, reason), []).append(experiment)
    lines = []
    for (system, reason), own in groups.items():
        where = str(own[0]) if len(own) == 1 else f"{system} ({len(own)} runs)"
        lines.append(f"{where}: {reason}")
    return lines


def by_family(rows: Sequence[dict]) -> dict[str, list[dict]]:
    """The rows of each chart: all of them in one (named ""), or family by family if there are too many systems."""
    systems = {row["system"] for row in rows}
    if len(systems) <= MOST_IN_A_CHART:
        return {"": list(rows)} if rows else {}
    families: dict[str, list[dict]] = {}
    for row in rows:
        families.setdefault(registry()[row["system"]].family.replace("_", " "), []).append(row)
    return families


def write_record(results: Results, shown: Photographs | None, path: Path) -> None:
    """Everything that the report says in numbers, as JSON."""
    _, names, probabilities, words = shown.predictions if shown else ((), (), (), ())
    record = {
        "few_shot": results.few_shot,
        "base_new": results.base_new,
        "failures": results.failures,
        "photographs": {
            name: {word: round(float(p), 4) for word, p in zip(words, row, strict=True)}
            for name, row in zip(names, probabilities, strict=True)
        },
    }
    write_atomically(path, json.dumps(record, indent=1, ensure_ascii=False))
