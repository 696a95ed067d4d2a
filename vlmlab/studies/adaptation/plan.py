"""What a report is asked to do, and the experiments that follow from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from vlmlab.datasets.catalog import BY_NAME
from vlmlab.datasets.task import DENSE
from vlmlab.errors import unknown
from vlmlab.registry import load_system, registry
from vlmlab.studies.experiment import Experiment, read_settings, settings_for
from vlmlab.studies.sweep import systems_of

LIGHTER: dict[str, dict[str, int]] = {
    "tpt": {"n_views": 8},
    "maple": {"epochs": 4},
    "tip_adapter": {"passes": 1},
    "tip_adapter_f": {"passes": 1},
}
"""Settings that keep a report short; the settings table of the report shows them. For the same reason a test-time system,
which learns again for every test image, runs with the first seed alone: another seed changes its views, not what it learns
from."""

MANY_CLASSES = 20
LIGHTER_MANY: dict[str, dict[str, int | float]] = {
    "coop": {"batch_size": 128},
    "maple": {"batch_size": 32, "lr": 0.01, "epochs": 2},
}
"""The same for a dataset of more classes than `MANY_CLASSES`: every step encodes all of them, and there are as many more
images, so larger batches make fewer of these steps. What that costs, on validation images of objects-silhouette at 16
shots, seed 0: CoOp 94.2 % (94.0 % with its own batches, in six times the seconds), MaPLe 90.7 % (92.4 % with its own batches
and three epochs, in three times the seconds)."""

EVERY = "all"
"""Stands for every system of survey section 6 that classifies, in `systems`; in `base_new` for those of the report."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a report is asked to do; see the parameters of notebooks/reports/adaptation.ipynb."""

    systems: Sequence[str]
    datasets: Sequence[str]
    backbone: str
    shots: Sequence[int]
    seeds: Sequence[int]
    workers: int
    store: Path
    base_new: Sequence[str] = ("coop", "maple")
    root: str = ""
    download: bool = False
    test_pictures: int = 0
    settings: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Spell out "all" and check the settings.

        Raises `VlmlabError` for a setting that no system of the report has, and for a value that its system cannot take.
        """
        systems = list(self.systems)
        if EVERY in systems:
            table = registry()
            systems = [key for key in systems_of("6")[1:] if "classification" in table[key].tasks]
        chosen = systems if EVERY in self.base_new else [key for key in systems if key in self.base_new]
        object.__setattr__(self, "systems", systems)
        object.__setattr__(self, "base_new", chosen)
        for name, _ in read_settings(self.settings):
            system, dot, own = name.rpartition(".")
            if dot and system not in systems:
                raise unknown("system of the report", system, systems)
            known = {field for key in ([system] if dot else systems) for field in _fields(key)}
            if own not in known:
                raise unknown("setting", own, sorted(known))
        for key in systems:
            if key in registry():
                load_system(key).configure(SimpleNamespace(embedded=False), **self.asked(key))

    def config(self, system: str, dataset: str) -> dict[str, int | float | str]:
        """What the report sets otherwise than the system's defaults: what keeps it short, then what the user asked for.

        A setting without a system's name goes to every system that has it.
        """
        return short_settings(system, dataset) | self.asked(system)

    def asked(self, system: str) -> dict[str, str]:
        """What the user set of this system, alone or with all that have the setting."""
        own = settings_for(system, read_settings(self.settings))
        return {name: own[name] for name in own if name in _fields(system)}

    def experiments(self) -> tuple[list[Experiment], list[Experiment]]:
        """The few-shot experiments (all classes), and those that learn on base classes with the most shots."""
        table, few, base = registry(), [], []
        for system in self.systems:
            info = table.get(system)
            without = info is not None and not info.takes_shots
            once = info is not None and info.setup == "test-time"
            for dataset in self.datasets:
                for seed in self.seeds[:1] if once else self.seeds:
                    common = {
                        "system": system,
                        "dataset": dataset,
                        "backbone": self.backbone,
                        "seed": seed,
                        "config": self.config(system, dataset),
                        "root": self.root or None,
                        "test_pictures": self.test_pictures,
                    }
                    few += [Experiment(**common, shots=k) for k in ([0] if without else self.shots)]
                    if system in self.base_new and not (info and info.setup in DENSE):
                        base.append(Experiment(**common, shots=0 if without else max(self.shots), split="base"))
        return few, base


def _fields(system: str) -> set[str]:
    """Names of the settings of a system; none if the system is not known, whose runs then say so."""
    return {field.name for field in dataclasses.fields(load_system(system).Config)} if system in registry() else set()


def short_settings(system: str, dataset: str) -> dict[str, int | float]:
    """What keeps a report short: settings other than the system's defaults."""
    from vlmlab.studies.run import shared_dataset

    known, classes = BY_NAME.get(dataset), 0
    if known:
        classes = known.classes
    elif Path(dataset).is_dir():
        classes = len(shared_dataset(dataset).classes)
    return LIGHTER.get(system, {}) | (LIGHTER_MANY.get(system, {}) if classes > MANY_CLASSES else {})
