"""What a report on boxes or on pixels is asked to do, and its results: from the store, or measured now."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlmlab.datasets.catalog import DATASETS
from vlmlab.errors import VlmlabError
from vlmlab.files import write_atomically
from vlmlab.registry import registry
from vlmlab.studies.comparable import must_share_protocol, must_share_supervision
from vlmlab.studies.experiment import Experiment, read_settings, settings_for
from vlmlab.studies.store import ResultStore

BASELINE = {"detection": "region_clip", "segmentation": "maskclip"}
"""Task -> the training-free system that the others are held against."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """See the parameters of notebooks/reports/detection.ipynb and segmentation.ipynb.

    Raises `VlmlabError` for systems that do not solve the task or that learn from different kinds of ground truth, and for
    absent words that are classes, before anything is computed.
    """

    task: str
    systems: Sequence[str]
    dataset: str
    backbone: str
    seeds: Sequence[int]
    store: Path
    test_pictures: int = 0
    absent: Sequence[str] = ()
    root: str = ""
    download: bool = False
    settings: Sequence[str] = ()

    def __post_init__(self) -> None:
        table = registry()
        for key in self.systems:
            if key in table and self.task not in table[key].tasks:
                able = ", ".join(k for k, info in table.items() if self.task in info.tasks)
                raise VlmlabError(f"{key} does {table[key].tasks[0]}, not {self.task}; choose among {able}")
        must_share_supervision([key for key in self.systems if key in table])
        classes = next((d for d in DATASETS if d.name == self.dataset and self.task not in d.tasks), None)
        if classes:
            raise VlmlabError(f"{self.dataset} has no ground truth for {self.task}; choose tableau, which does")

    def experiments(self) -> list[Experiment]:
        """One per system and seed; a training-free system runs with the first seed alone, since no seed changes it."""
        settings, found = read_settings(self.settings), []
        for key in self.systems:
            once = registry()[key].setup == "training-free"
            for seed in self.seeds[:1] if once else self.seeds:
                found.append(
                    Experiment(
                        system=key,
                        dataset=self.dataset,
                        backbone=self.backbone,
                        shots=16 if registry()[key].takes_shots else 0,
                        seed=seed,
                        config=settings_for(key, settings),
                        root=self.root or None,
                        test_pictures=self.test_pictures,
                    )
                )
        return found


@dataclasses.dataclass
class Results:
    """Rows as `vlmlab run --json` prints them, each with "inside" (see `boxes` and `pixels`) and "names"; reasons of what failed."""

    task: str
    rows: list[dict]
    failures: list[str]

    @property
    def shown(self) -> list[dict]:
        """One row per system, of the first seed: what is shown is one fit."""
        return [self.of(system)[0] for system in self.systems]

    def of(self, system: str) -> list[dict]:
        """The rows of one system, a seed each."""
        return [row for row in self.rows if row["system"] == system]

    @property
    def systems(self) -> list[str]:
        return list(dict.fromkeys(row["system"] for row in self.rows))


def run(plan: Plan) -> Results:
    """Measure what is not in the store yet; what is measured is kept at once, so that a stopped report goes on from there.

    Raises `VlmlabError` if nothing at all succeeded (the first reason), or if the results are not of one protocol.
    """
    store, rows, failures = ResultStore(plan.store), [], []
    store.prepare()
    for experiment in plan.experiments():
        row = store.get(experiment)
        if row is None or row["inside"]["absent_words"] != list(plan.absent):
            try:
                row = measure(experiment, plan.absent, plan.download)
            except VlmlabError as error:
                failures.append(f"{experiment.system}: {error}")
                continue
            store.add(experiment, row)
        rows.append(row)
    if not rows:
        raise VlmlabError(failures[0] if failures else "the report has no system or seed to run")
    must_share_protocol(rows)
    ground = next((row for row in rows if row["system"] == BASELINE[plan.task]), None)
    rows = [row | {"zero_shot": ground["metrics"] if ground and row is not ground else {}} for row in rows]
    return Results(plan.task, rows, list(dict.fromkeys(failures)))


def measure(experiment: Experiment, absent: Sequence[str] = (), download: bool = False) -> dict[str, Any]:
    """Fit, evaluate and open one system; what `vlmlab run --json` prints, without zero-shot prediction, and "inside"."""
    from vlmlab.methods.dense.two_stage import TwoStage
    from vlmlab.studies.open_vocabulary.boxes import look_at_boxes
    from vlmlab.studies.open_vocabulary.pixels import look_at_pixels
    from vlmlab.studies.run import adapt, evaluated, some

    adapted = adapt(experiment, download=download)
    method, task = adapted.method, adapted.task
    if wrong := [word for word in absent if word in task.classes]:
        raise VlmlabError(
            f"the absent word '{wrong[0]}' is a class of {task.dataset.name}; choose one that is not there"
        )
    images = some(task.test, experiment.test_pictures)
    look = look_at_boxes if "detection" in method.info.tasks else look_at_pixels
    with contextlib.ExitStack() as until:
        if isinstance(method, TwoStage):  # the same images are looked at with true boxes, with other words, ...
            until.enter_context(method.tested.remembering())
        measured = evaluated(adapted, experiment)
        inside = look(method, task, images, absent)  # type: ignore[operator]
    return measured | {
        "images": len(images),
        "validation_images": len(task.tuning),
        "classes": list(task.classes),
        "names": {"base": [task.classes[c] for c in task.base], "new": [task.classes[c] for c in task.new]},
        "inside": inside | {"absent_words": list(absent)},
    }


def tested_images(results: Results, root: str = "") -> Any:
    """The test images that the examples of the results are counted in."""
    from vlmlab.registry import load_system
    from vlmlab.studies.run import dataset_for, shared_bank, some

    row = results.rows[0]
    segments = load_system(row["system"]).info.tasks[0] == "segmentation"
    dataset = dataset_for(shared_bank(row["backbone"]), row["dataset"], root=root or None, with_stuff=segments)
    return some(dataset.test, row["test_pictures"])


def write_record(results: Results, path: Path) -> None:
    """Everything that the report says in numbers, as JSON."""
    write_atomically(path, json.dumps(dataclasses.asdict(results), indent=1, ensure_ascii=False))
