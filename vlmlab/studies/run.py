"""From an experiment to its result."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import os
import platform
import threading
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

from vlmlab import __version__
from vlmlab.backbones import load_backbone
from vlmlab.backbones.loading import device_of
from vlmlab.clock import Clock
from vlmlab.datasets import Dataset, ImageSet, Task, load_dataset
from vlmlab.datasets.catalog import BY_NAME, shifted_versions
from vlmlab.datasets.multi_task import with_companions
from vlmlab.datasets.protocol import unsolved
from vlmlab.datasets.sources import files_of_folder
from vlmlab.datasets.splits import at_most
from vlmlab.errors import VlmlabError
from vlmlab.features.bank import FeatureBank
from vlmlab.files import expanded, files_identity
from vlmlab.learning.evaluate import evaluate, evaluate_hierarchy, harmonic_mean
from vlmlab.learning.fit import FitRecord, fit
from vlmlab.learning.memory import PeakMemory
from vlmlab.learning.metrics import main_metric
from vlmlab.methods.dense.detector import Detector
from vlmlab.methods.dense.segmenter import Segmenter
from vlmlab.methods.method import Method
from vlmlab.methods.needs import lacking
from vlmlab.randomness import LocalRandom
from vlmlab.registry import SystemInfo, load_system, registry
from vlmlab.studies.experiment import Experiment, absolute_backbone, absolute_dataset
from vlmlab.studies.splits import SPLITS


@dataclasses.dataclass
class Adapted:
    """A method after `adapt`: ready to predict, with what it was adapted to and what that took."""

    method: Method
    task: Task
    bank: FeatureBank
    record: FitRecord


class Latest:
    """The latest few things that were costly to make, each made once: panels are threads, and who comes second waits."""

    def __init__(self, most: int) -> None:
        self.most, self._lock = most, threading.RLock()
        self._made: dict[Hashable, Any] = {}

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        with self._lock:
            made = self._made.pop(key) if key in self._made else make()
            self._made[key] = made
            for oldest in list(self._made)[: -self.most]:
                del self._made[oldest]
            return made

    def clear(self) -> None:
        with self._lock:
            self._made.clear()


_banks, _datasets = Latest(2), Latest(6)


def shared_bank(backbone: str, device: str = "auto") -> FeatureBank:
    """The feature bank (and in it the backbone) that all experiments of this process share.

    The latest two stay in memory, each once, however the backbone and the device are spelled.
    """
    backbone, device = absolute_backbone(backbone), str(device_of(device))
    return _banks.get((backbone, device), lambda: FeatureBank(load_backbone(backbone, device)))


shared_bank.cache_clear = _banks.clear  # type: ignore[attr-defined]  # as functools.cache has it


FIGURES = (
    "accuracy", "ece", "map", "miou", "pixel_accuracy", "base", "new", "harmonic_mean", "shift", "hca", "mta", "targets",
    "ap50_new_only", "ap_new_only",
    *(
        f"{name}{group}"
        for name in ("ap50", "ap", "miou", "pq", "mask_ap50", "mask_ap", "recall", "teacher")
        for group in ("", "_base", "_new", "_rare", "_common", "_frequent")
    ),
)  # fmt: skip
"""Names that a result's `metrics` may have; the others are those of datasets."""

LARGEST_DRAWN = 128  # pixels: what MicroWorld draws for a backbone that wants more is enlarged from here


def shared_dataset(
    name: str,
    root: str | None = None,
    download: bool = False,
    skip_broken: bool = False,
    size: int = 64,
    with_stuff: bool = False,
) -> Dataset:
    """A dataset that all experiments of this process share; `with_stuff` counts sky, grass, ... among the classes.

    The latest six stay in memory, each once, however they are spelled: what does not matter to a dataset (the root to one
    that is drawn, the size to one that is read) does not tell copies apart. A folder whose files changed is read again.
    Raises `VlmlabError` as `load_dataset` does.
    """
    name, files = absolute_dataset(name), ""
    if name not in BY_NAME:
        root, size = None, 64
        files = files_identity(files_of_folder(Path(name)).values()) if Path(name).is_dir() else ""
    elif BY_NAME[name].offline:
        root, skip_broken = None, False
    else:
        root, size = root and os.path.realpath(expanded(root)), 64

    def read() -> Dataset:
        return load_dataset(name, root=root, download=download, size=size, skip_broken=skip_broken)

    key = (name, files, root, skip_broken, size)
    if not with_stuff:
        return _datasets.get(key, read)
    return _datasets.get((*key, "with stuff"), lambda: _datasets.get(key, read).with_stuff())


shared_dataset.cache_clear = _datasets.clear  # type: ignore[attr-defined]  # as functools.cache has it


def dataset_for(bank: FeatureBank, name: str, **how) -> Dataset:
    """The dataset as experiments with this backbone see it: what is drawn is drawn at the size that it takes."""
    return shared_dataset(name, size=min(bank.backbone.image_size, LARGEST_DRAWN), **how)


@dataclasses.dataclass
class Constructed:
    """An experiment's system before it has seen its task.

    `task` is for measuring; `seen` is what of it the system's setup may see. `prepare` shows what learning begins with.
    """

    method: Method
    task: Task
    seen: Task
    bank: FeatureBank
    views: int

    def prepare(self) -> Method:
        """The method as `learn` prepares it, for whoever wants to look at it before the first step."""
        self.method.bank = self.bank
        with LocalRandom(self.task.seed):
            self.method.prepare(self.seen)
        return self.method

    def learn(
        self,
        on_step: Callable[[int, int, float], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
        checkpoint: Path | None = None,
    ) -> Adapted:
        """Fit the method; the arguments are those of `fit`."""
        record = fit(self.method, self.seen, on_step, should_stop, checkpoint, self.bank, self.views)
        return Adapted(self.method, self.task, self.bank, record)


def adapt(
    experiment: Experiment,
    device: str = "auto",
    download: bool = False,
    on_step: Callable[[int, int, float], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    checkpoint: Path | None = None,
) -> Adapted:
    """Construct the experiment's system and fit it to its task; for splits "base" and "new" to the base classes.

    Raises `VlmlabError` for names, settings or shots that cannot be, before anything is computed.
    """
    return construct(experiment, device, download).learn(on_step, should_stop, checkpoint)


def construct(experiment: Experiment, device: str = "auto", download: bool = False) -> Constructed:
    """The first half of `adapt`, for who wants the method in hand while it learns (a panel that draws it step by step).

    Raises `VlmlabError` as `adapt` does.
    """
    system = load_system(experiment.system)
    bank = shared_bank(experiment.backbone, device)
    config = system.configure(bank.backbone, **dict(experiment.config))
    segments = system.info.tasks[0] == "segmentation"
    if experiment.validation and (experiment.targets or experiment.split == "shift"):
        raise VlmlabError(
            "settings are chosen on the dataset's own validation images; leave out the targets and split shift"
        )
    split = SPLITS[experiment.split]
    if reason := split.refusal(system.info, experiment.dataset):
        raise VlmlabError(reason)
    how = {"root": experiment.root, "download": download, "skip_broken": experiment.skip_broken}
    dataset = dataset_for(bank, experiment.dataset, with_stuff=segments, **how)
    refuse(system.info, dataset)
    for target in _targets(experiment, bank, download):
        refuse(system.info, target)
    task = Task(bank.backbone, dataset, experiment.shots, experiment.seed, split.learned_on, experiment.noise)
    task = with_companions(task, config, functools.partial(dataset_for, bank, **how))
    if experiment.split == "hierarchy":
        task.hierarchy()
    if experiment.validation:
        _ = task.tuning  # a dataset without any is told before anything is computed
    method = system(bank.backbone, config)
    seen = task.seen_by(system.info.setup)  # whatever else the system asks for is an error, test images first of all
    return Constructed(method, task, seen, bank, experiment.views)


def refuse(info: SystemInfo, dataset: Dataset) -> None:
    """Raises `VlmlabError` if the system solves no task that the dataset has ground truth for; says which it solves."""
    if reason := unsolved(info, dataset):
        raise VlmlabError(reason)


def run_experiment(
    experiment: Experiment,
    device: str = "auto",
    download: bool = False,
    on_step: Callable[[int, int, float], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    checkpoint: Path | None = None,
) -> dict:
    """Adapt and evaluate; gives what `vlmlab run --json` prints.

    `metrics` are in percent, on the test images (or the validation images, if the experiment says so): "accuracy" and
    "ece", or "map", or "miou" and "pixel_accuracy". There are more of them for
    - split "base" or "new": "base", "new" and "harmonic_mean"; "accuracy" is that of the split asked for. A system that
      cannot carry over what it learned has no "new"; to ask it for that split is an error;
    - split "shift": the main metric on every shifted version of the dataset, by its name, and their mean as "shift";
    - split "hierarchy", and a system of hierarchical classification: "hca" and "mta" of `evaluate_hierarchy`;
    - `targets`: the main metric on each of them, by its name, and their mean as "targets".
    `zero_shot` holds the metrics of zero-shot prediction with the same backbone and images (see `baseline_of`), and `zero_shot_templates` its
    sentences where they are not the dataset's.
    `seconds` is adaptation plus evaluation of the system by the clock, `cpu_seconds`
    the same of the processor, `peak_mb` the process' largest memory within.

    Raises `VlmlabError` for whatever the user can mend.
    """
    adapted = adapt(experiment, device, download, on_step, should_stop, checkpoint)
    # Zero-shot first: it leaves the test images' features in the bank, so that the clock counts the system alone.
    zero_shot = _measured(baseline_of(adapted), adapted, experiment)
    return evaluated(adapted, experiment) | {"zero_shot": zero_shot}


def evaluated(adapted: Adapted, experiment: Experiment) -> dict[str, Any]:
    """The result of `run_experiment` for a system that is adapted already, with an empty `zero_shot`."""
    method, record = adapted.method, adapted.record
    with PeakMemory() as memory, Clock() as clock:
        metrics = _measured(method, adapted, experiment)
    return {
        "system": experiment.system,
        "dataset": experiment.dataset,
        "backbone": experiment.backbone,
        "shots": experiment.shots,
        "seed": experiment.seed,
        "split": experiment.split,
        "metrics": metrics,
        "zero_shot": {},
        "trainable_parameters": method.trainable_parameters,
        "seconds": round(record.seconds + clock.read()[0], 3),
        "cpu_seconds": round(record.cpu_seconds + clock.read()[1], 3),
        "peak_mb": max(record.peak_mb, memory.peak_mb),
        "config": dataclasses.asdict(method.config),
        "views": experiment.views,
        **({"zero_shot_templates": method.compared_with} if method.compared_with != "dataset" else {}),
        **({"targets": list(experiment.targets)} if experiment.targets else {}),
        **({"noise": experiment.noise} if experiment.noise else {}),
        **({"test_pictures": experiment.test_pictures} if experiment.test_pictures else {}),
        **({"validation": True} if experiment.validation else {}),
        "stopped": record.stopped,
        "versions": versions(),
    }


def baseline_of(adapted: Adapted) -> Method:
    """What a system is compared with, ready for its task: zero-shot prediction with the same backbone.

    Of whole images, with the words that the system names (`Method.compared_with`), usually the dataset's; beside a system that
    detects, of proposals (region_clip), and beside one that segments, of pixels (MaskCLIP), where there is such a system and the
    backbone carries it.
    """
    backbone, method = adapted.bank.backbone, adapted.method
    key = "region_clip" if isinstance(method, Detector) else "maskclip" if isinstance(method, Segmenter) else ""
    if key in registry() and not lacking(registry()[key].needs, backbone):
        baseline = load_system(key)(backbone)
        baseline.prepare(adapted.task.seen_by(baseline.info.setup))
    else:
        zero_shot = load_system("zero_shot")
        baseline = zero_shot(backbone, zero_shot.configure(backbone, templates=method.compared_with))
        baseline.prepare(adapted.task)
    return baseline


def _measured(method: Method, adapted: Adapted, experiment: Experiment) -> dict[str, float]:
    """The numbers of one method on the experiment's split; it is left on the classes that it learned."""
    learned = adapted.task
    base = _figures(method, _tested(learned, experiment), adapted, experiment)
    if experiment.split == "hierarchy" or "hierarchical classification" in adapted.method.info.tasks:
        # The tree that the system learned from, where it learned from one.
        tree = getattr(adapted.method, "tree", None) or learned.hierarchy()
        tested = some(_tested(learned, experiment), experiment.test_pictures)
        found = evaluate_hierarchy(method, tested, tree, adapted.bank, experiment.seed)
        base |= {name: round(found[name], 4) for name in ("hca", "mta")}
    main = main_metric(base)
    if experiment.targets:
        base |= _on_targets(method, adapted, experiment, main)
    return MEASURED[experiment.split](base, main, method, adapted, experiment)


def _as_they_are(base: dict, main: str, method: Method, adapted: Adapted, experiment: Experiment) -> dict[str, float]:
    return base


def _in_other_styles(
    base: dict, main: str, method: Method, adapted: Adapted, experiment: Experiment
) -> dict[str, float]:
    """Also the main metric on every shifted version of the dataset, and their mean."""
    shifted = {
        name: _figures(method, dataset_for(adapted.bank, name).test, adapted, experiment)[main]
        for name in shifted_versions(adapted.task.dataset.name)
    }
    return base | shifted | {"shift": round(sum(shifted.values()) / len(shifted), 4)}


def _of_both_groups(
    base: dict, main: str, method: Method, adapted: Adapted, experiment: Experiment
) -> dict[str, float]:
    """The metrics of the half that is asked for, and the main one of both with their harmonic mean."""
    learned = adapted.task
    task = learned.for_classes("new")
    try:
        method.set_classes(task.classes, task.templates)
    except VlmlabError:
        # What this system learned belongs to its classes; that only matters to who asks for the other half.
        if experiment.split == "new":
            raise
        return base | {"base": base[main]}
    new = _figures(method, _tested(task, experiment), adapted, experiment)
    method.set_classes(learned.classes, learned.templates)
    asked = base if experiment.split == "base" else new
    mean = round(harmonic_mean(base[main], new[main]), 4)
    return asked | {"base": base[main], "new": new[main], "harmonic_mean": mean}


MEASURED = {
    "all": _as_they_are, "hierarchy": _as_they_are, "shift": _in_other_styles, "base": _of_both_groups, "new": _of_both_groups
}  # fmt: skip
"""Split -> (metrics on the learned classes, the main one's name, method, adapted, experiment) -> all metrics of the split."""


def _tested(task: Task, experiment: Experiment) -> ImageSet:
    """The images that the experiment measures on."""
    return task.tuning if experiment.validation else task.test


def _targets(experiment: Experiment, bank: FeatureBank, download: bool = False) -> list[Dataset]:
    """The datasets that an experiment reports on beside its own; `VlmlabError` if a name would stand for two metrics."""
    how = {"root": experiment.root, "download": download, "skip_broken": experiment.skip_broken}
    targets = [dataset_for(bank, name, **how) for name in experiment.targets]
    taken = set(FIGURES)
    for target in targets:
        if target.name in taken:
            what = "the name of a metric" if target.name in FIGURES else "what another target is called"
            raise VlmlabError(f"the target '{target.name}' cannot be told apart: it is {what}; rename the folder")
        taken.add(target.name)
    return targets


def _on_targets(method: Method, adapted: Adapted, experiment: Experiment, main: str) -> dict[str, float]:
    """The metric `main` on every target, among its own classes, and the mean; the method is left on its classes."""
    learned, found = adapted.task, {}
    for target in _targets(experiment, adapted.bank):
        task = Task(adapted.bank.backbone, target, 0, experiment.seed)
        if task.classes != method.classes:
            method.set_classes(task.classes, task.templates)
        found[target.name] = _figures(method, task.test, adapted, experiment)[main]
    if method.classes != learned.classes:
        method.set_classes(learned.classes, learned.templates)
    return found | {"targets": round(sum(found.values()) / len(found), 4)}


def _figures(method: Method, pictures: ImageSet, adapted: Adapted, experiment: Experiment) -> dict[str, float]:
    """What `evaluate` measured, without the table per class."""
    task = adapted.task
    apart = task.dataset.novel or adapted.method.info.setup == "open-vocabulary"  # which learns from base classes alone
    groups = task.groups if apart and task.split == "all" else {}
    measured = evaluate(method, some(pictures, experiment.test_pictures), adapted.bank, experiment.seed, groups)
    return {name: round(value, 4) for name, value in measured.items() if not isinstance(value, dict)}


def some(pictures: ImageSet, most: int) -> ImageSet:
    """About `most` of the images, equally many of every class, at least one; all of them for 0."""
    if not most or len(pictures) <= most:
        return pictures
    labels = pictures.labels
    classes = labels.shape[1] if labels.ndim == 2 else len(labels.unique())
    return pictures.subset(at_most(pictures, max(1, most // classes), 0))


def versions() -> dict[str, str]:
    """What the numbers may depend on."""
    packages = {name: importlib.metadata.version(name) for name in ("torch", "open_clip_torch", "timm", "transformers")}
    return {"vlmlab": __version__, "python": platform.python_version()} | packages
