"""Many experiments, on this machine or on a cluster (dask.distributed), into one folder.

What is done stands in the store and is not done again, so a sweep that was killed is continued by running it again, and
ends with the results of one that never was: an experiment's numbers follow from its content alone, and every worker
computes with one thread, because the order of a sum depends on the number of threads. Two sweeps in one folder share
the work already done. Long training leaves checkpoints in the store, from which another worker goes on.

On a cluster the folder must be one that the workers see under the same path.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed

from distributed import Client

from vlmlab.datasets.catalog import DATASETS, canonical, shifted_versions
from vlmlab.errors import ForeignCheckpoint, VlmlabError, unknown
from vlmlab.files import data_path
from vlmlab.registry import SystemInfo, registry
from vlmlab.studies.experiment import Experiment
from vlmlab.studies.store import ResultStore

PATIENCE = 20  # seconds that a scheduler has to answer


def systems_of(section: str) -> list[str]:
    """Keys of the systems of a section of the survey, such as "6" or "6.3.1", after zero-shot prediction.

    Raises `VlmlabError` for a section that no system is from.
    """
    table = registry()
    found = [key for key, info in table.items() if f"{info.section}.".startswith(f"{section}.") and key != "zero_shot"]
    if not found:
        raise unknown("section", section, sorted({info.section for info in table.values()}))
    return ["zero_shot", *found]


def suited(
    systems: Sequence[str],
    datasets: Sequence[str] | None = None,
    backbones: Sequence[str] = ("micro-vit",),
    shots: Sequence[int] = (1, 4, 16),
    seeds: Sequence[int] = (0, 1, 2),
    splits: Sequence[str] = ("all",),
    **same,
) -> list[Experiment]:
    """Every combination that makes sense; `same` are other fields of `Experiment`, a callable one is asked per system.

    A system that takes no shots is run once per dataset and seed, with 0. A system that does not classify meets the
    datasets whose ground truth it needs, one that wants a class tree those that come with one. Splits other than "all"
    take the most shots; "shift" is for datasets that have shifted versions, and "base" and "new" for systems that
    classify, by one label or several.

    Args:
        datasets: names or folders; all embedded ones with training images if None.
    """
    table = registry()
    names = [canonical(name) for name in datasets or ()] or [
        info.name for info in DATASETS if info.offline and info.splits["train"]
    ]
    experiments = []
    # Dataset by dataset, as in `grid`: a sweep that is stopped early has all systems on the first ones.
    for backbone, name, key, split in itertools.product(backbones, names, systems, splits):
        info = table[key]
        if not _fits(info, name) or (split == "shift" and not shifted_versions(name)):
            continue
        if split != "all" and not {"classification", "multi-label classification"} & set(info.tasks):
            continue
        few = [0] if not info.takes_shots else shots if split == "all" else [max(shots)]
        fields = {field: value(key) if callable(value) else value for field, value in same.items()}
        experiments += [Experiment(key, name, backbone, k, seed, split, **fields) for k in few for seed in seeds]
    return experiments


def _fits(info: SystemInfo, dataset: str) -> bool:
    """Whether the ground truth of a dataset is of a kind that the system solves; folders have classes."""
    kinds = next((set(d.tasks) for d in DATASETS if d.name == dataset), {"classification"})
    if "hierarchical classification" in info.tasks:
        # The family of objects has its tree in the code; no torch is imported to ask it.
        return dataset.startswith("objects") or data_path("hierarchies", f"{dataset}.json").is_file()
    return bool(set(info.tasks) & kinds)


@dataclasses.dataclass
class Outcome:
    """What became of one experiment: a result, or the reason of its failure; `known` if the store had the result."""

    experiment: Experiment
    result: dict | None = None
    failure: str | None = None
    known: bool = False


def sweep(
    experiments: Sequence[Experiment],
    store: ResultStore,
    workers: int | None = None,
    scheduler: str | None = None,
    on_outcome: Callable[[Outcome], None] | None = None,
    download: bool = False,
) -> list[Outcome]:
    """Run the experiments that the store has no result of; one that failed before is tried again.

    Args:
        workers: processes of a local cluster, one thread each; as many as cores if None, and never more than there are
            experiments to run. 0 runs them in this process, one after the other, with its number of threads.
        scheduler: address of a running dask scheduler, such as tcp://10.0.0.1:8786; `workers` then means nothing.
        on_outcome: told of every experiment, known ones first, the others as they end.
        download: whether workers may download a standard dataset.

    Returns the outcomes in the order of `experiments`; one that appears twice is run once.
    Raises `VlmlabError` if no scheduler answers at that address, for fewer workers than none, and if the store cannot
    be written.
    """
    if workers is not None and workers < 0:
        raise VlmlabError(f"workers is a number of processes, 0 for this one, not {workers}")
    outcomes: dict[str, Outcome] = {}
    pending: dict[str, Experiment] = {}
    for experiment in experiments:
        result = store.get(experiment)
        if result is None:
            pending[experiment.key] = experiment
        elif experiment.key not in outcomes:
            outcomes[experiment.key] = _told(Outcome(experiment, result, known=True), on_outcome)
    if pending:
        store.prepare()
        some = min(workers if workers is not None else os.cpu_count() or 1, len(pending))
        folder = str(store.folder.resolve())
        here = scheduler is None and some == 0
        # Not in a thread: Ctrl-C reaches the work only in the main one.
        ended = _one_by_one if here else functools.partial(_by_workers, workers=some, scheduler=scheduler)
        with contextlib.closing(ended(list(pending.values()), folder, download)) as news:
            for outcome in news:
                if outcome.failure is not None:
                    store.add_failure(outcome.experiment, outcome.failure)
                outcomes[outcome.experiment.key] = _told(outcome, on_outcome)
    return [outcomes[experiment.key] for experiment in experiments]


def work(experiment: Experiment, folder: str, download: bool = False) -> dict:
    """What a worker does: run one experiment and keep its result in the store at `folder`."""
    # Imported by the worker: the process that hands out the work needs no torch.
    from vlmlab.studies.run import run_experiment

    store = ResultStore(folder)
    result = store.get(experiment)  # another sweep may have been faster
    if result is None:
        store.look(experiment)
        try:
            result = run_experiment(experiment, download=download, checkpoint=store.checkpoint(experiment))
        except ForeignCheckpoint:  # of images that have changed since, or of an older vlmlab: of no use any more
            store.forget_checkpoint(experiment)
            result = run_experiment(experiment, download=download, checkpoint=store.checkpoint(experiment))
        store.add(experiment, result)
        store.forget_checkpoint(experiment)
    return result


def _one_by_one(experiments: Sequence[Experiment], folder: str, download: bool) -> Iterator[Outcome]:
    """The outcomes of work in this process."""
    for experiment in experiments:
        try:
            outcome = Outcome(experiment, result=work(experiment, folder, download))
        except Exception as error:
            outcome = _failed(experiment, error)
        yield outcome


def _by_workers(
    experiments: Sequence[Experiment], folder: str, download: bool, workers: int, scheduler: str | None
) -> Iterator[Outcome]:
    """The outcomes of work in other processes, as they end."""
    try:
        client = Client(scheduler, timeout=PATIENCE) if scheduler else _local(workers)
    except (OSError, ValueError, TimeoutError) as error:
        raise VlmlabError(
            f"no dask scheduler answers at {scheduler or 'this machine'} ({type(error).__name__}); "
            "start one with `dask scheduler`, or leave --scheduler out to use this machine"
        ) from error
    with client, client.get_executor(pure=False) as executor:
        futures = {executor.submit(work, experiment, folder, download): experiment for experiment in experiments}
        try:
            for future in as_completed(futures):
                error, experiment = future.exception(), futures[future]
                yield _failed(experiment, error) if error else Outcome(experiment, result=future.result())
        finally:
            for future in futures:  # of use only if the user stopped the sweep
                future.cancel()


def _local(workers: int) -> Client:
    return Client(
        n_workers=workers,
        threads_per_worker=1,
        dashboard_address="127.0.0.1:0",  # any free port: two sweeps on one machine must not be in each other's way
        silence_logs=50,  # workers that are shut down must not complain on the terminal
    )


def _failed(experiment: Experiment, error: BaseException) -> Outcome:
    text = " ".join(str(error).split()) or type(error).__name__
    return Outcome(experiment, failure=text if isinstance(error, VlmlabError) else f"{type(error).__name__}: {text}")


def _told(outcome: Outcome, on_outcome: Callable[[Outcome], None] | None) -> Outcome:
    if on_outcome:
        on_outcome(outcome)
    return outcome
