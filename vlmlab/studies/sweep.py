"""Many experiments, on this machine or on a cluster (dask.distributed), into one folder.

What is done stands in the store and is not done again, so a sweep that was killed is continued by running it again, and
ends with the results of one that never was: an experiment's numbers follow from its content alone, and every worker
computes with one thread, because the order of a sum depends on the number of threads. Two sweeps in one folder share
the work already done. Long training leaves checkpoints in the store, from which another worker goes on.

On a cluster, workers that see the folder under the same path keep their results and checkpoints there themselves; the
results of the others come back to this process, which keeps them. Folders of images and checkpoint files must lie where
the workers find them. The scheduler knows of `WAVE` experiments at a time, however many are planned.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import itertools
import os
import queue
import secrets
import socket
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

from distributed import Client, KilledWorker, LocalCluster

from vlmlab.datasets.catalog import DATASETS, canonical, relative
from vlmlab.errors import ForeignCheckpoint, VlmlabError, unknown
from vlmlab.files import without_main_module, write_atomically
from vlmlab.registry import SystemInfo, registry
from vlmlab.studies.experiment import Experiment, is_path
from vlmlab.studies.splits import SPLITS, has_tree
from vlmlab.studies.store import ResultStore

PATIENCE = 20  # seconds that a scheduler has to answer
WAVE = 1000  # experiments that the scheduler knows of at a time
NO_ANSWER = (OSError, ValueError, TimeoutError)
LOSSES = 5  # connections to the scheduler in a row that may be lost before anything ends


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
    take the most shots, and meet the systems and datasets that `splits.SPLITS` lets them.

    Args:
        datasets: names or folders; all embedded ones with training images if None, but tableau's relatives.
    """
    table = registry()
    names = [canonical(name) for name in datasets or ()] or [
        info.name for info in DATASETS if info.offline and info.splits["train"] and not relative(info.name)
    ]
    experiments = []
    # Dataset by dataset, as in `grid`: a sweep that is stopped early has all systems on the first ones.
    for backbone, name, key, split in itertools.product(backbones, names, systems, splits):
        info = table[key]
        if not _fits(info, name) or SPLITS[split].refusal(info, name):
            continue
        few = [0] if not info.takes_shots else shots if split == "all" else [max(shots)]
        fields = {field: value(key) if callable(value) else value for field, value in same.items()}
        experiments += [Experiment(key, name, backbone, k, seed, split, **fields) for k in few for seed in seeds]
    return experiments


def _fits(info: SystemInfo, dataset: str) -> bool:
    """Whether the ground truth of a dataset is of a kind that the system solves; folders have classes."""
    kinds = next((set(d.tasks) for d in DATASETS if d.name == dataset), {"classification"})
    if "hierarchical classification" in info.tasks:
        return has_tree(dataset)
    return bool(set(info.tasks) & kinds)


class MeasuredAgain(UserWarning):
    """Results are measured again, because what they were measured on has changed."""


@dataclasses.dataclass
class Outcome:
    """What became of one experiment: a result, or the reason of its failure.

    `known` if the store had the result. `changed` says in one line what has changed since the store's result was measured,
    which is therefore measured again.
    """

    experiment: Experiment
    result: dict | None = None
    failure: str | None = None
    known: bool = False
    changed: str | None = None


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
    What has changed since results of the store were measured is said in a warning, `MeasuredAgain`, before the work begins.
    Raises `VlmlabError` if no scheduler answers at that address, for fewer workers than none, and if the store cannot
    be written.
    """
    if workers is not None and workers < 0:
        raise VlmlabError(f"workers is a number of processes, 0 for this one, not {workers}")
    outcomes: dict[str, Outcome] = {}
    pending: dict[str, Experiment] = {}
    changed: dict[str, str] = {}
    for experiment in experiments:
        result = store.get(experiment)
        if result is None:
            pending[experiment.key] = experiment
            if why := store.changes(experiment):
                changed[experiment.key] = why
        elif experiment.key not in outcomes:
            outcomes[experiment.key] = _told(Outcome(experiment, result, known=True), on_outcome)
    for why, count in collections.Counter(changed.values()).items():
        counted = f"{count} result{'s' * (count != 1)}"
        warnings.warn(f"{why}; {counted} of {store.folder} to be measured again", MeasuredAgain, stacklevel=2)
    if pending:
        store.prepare()
        some = min(workers if workers is not None else os.cpu_count() or 1, len(pending))
        here = scheduler is None and some == 0
        # Not in a thread: Ctrl-C reaches the work only in the main one.
        ended = _one_by_one if here else functools.partial(_by_workers, workers=some, scheduler=scheduler)
        with contextlib.closing(ended(list(pending.values()), store, download)) as news:
            for outcome in news:
                if outcome.failure is not None:
                    store.add_failure(outcome.experiment, outcome.failure)
                outcome.changed = changed.get(outcome.experiment.key)
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


def work_elsewhere(
    experiment: Experiment, folder: str, mark: str, download: bool = False
) -> tuple[dict, dict[str, str] | None]:
    """What a worker does in a process of its own, perhaps on another machine: (result, what it was made from).

    Where the worker sees the store at `folder`, which the file `mark` in it proves, it keeps the result there, and the
    second value is None. Otherwise it writes nothing: the result is for the caller to keep.
    Raises `VlmlabError` if a folder or file that the experiment names is not to be seen from here.
    """
    _must_be_seen(experiment)
    if os.path.isfile(os.path.join(folder, mark)):
        return work(experiment, folder, download), None
    from vlmlab.studies.run import run_experiment

    made_from = ResultStore(folder).look(experiment)
    return run_experiment(experiment, download=download), made_from


def _must_be_seen(experiment: Experiment) -> None:
    folders = [name for name in (experiment.dataset, *experiment.targets) if is_path(name)]
    file = experiment.backbone.partition("@")[2]
    wrong = [name for name in folders if not os.path.isdir(name)]
    wrong += [file] if file and not os.path.isfile(os.path.expanduser(file)) else []
    if wrong:
        raise VlmlabError(
            f"a worker on {socket.gethostname()} does not see {wrong[0]}; put it where all workers find it under that path"
        )


def _one_by_one(
    experiments: Sequence[Experiment], store: ResultStore, download: bool
) -> Generator[Outcome, None, None]:
    """The outcomes of work in this process."""
    folder = str(store.folder.resolve())
    for experiment in experiments:
        try:
            outcome = Outcome(experiment, result=work(experiment, folder, download))
        except Exception as error:
            outcome = _failed(experiment, error)
        yield outcome


def _by_workers(
    experiments: Sequence[Experiment], store: ResultStore, download: bool, workers: int, scheduler: str | None
) -> Generator[Outcome, None, None]:
    """The outcomes of work in other processes, as they end; a result that a worker could not keep is kept here.

    A client that cannot be attended to for half a minute, on a machine that has too much to do, loses its connection, and with
    it everything that it has handed out. That is handed out again by a new client, unless `LOSSES` of them in a row end nothing.
    """
    todo, losses = collections.deque(experiments), 0
    with without_main_module(), _cluster(workers, scheduler) as cluster:
        while todo and losses < LOSSES:
            losses += 1
            try:
                client = _client(cluster, scheduler)
            except VlmlabError:
                if len(todo) == len(experiments):
                    raise
                break
            try:
                for outcome in _by_client(client, todo, store, download):
                    losses = 0
                    yield outcome
            finally:
                # Closing tells again what dask stumbled over when it noticed the loss: its list of futures had changed meanwhile, or
                # the scheduler still took the old connection for the client's.
                with contextlib.suppress(RuntimeError, AssertionError, *NO_ANSWER):
                    client.close()
        for experiment in todo:
            yield Outcome(experiment, failure="the scheduler has lost it; run the sweep again")


def _by_client(
    client: Client, todo: collections.deque[Experiment], store: ResultStore, download: bool
) -> Generator[Outcome, None, None]:
    """The outcomes of `todo`, as they end, until all have or the client has lost one; those that have not ended stay in `todo`."""
    folder, mark = str(store.folder.resolve()), f".sweep-{secrets.token_hex(8)}.tmp"
    running: dict[Any, Experiment] = {}
    ended: queue.SimpleQueue = queue.SimpleQueue()
    executor, connection = client.get_executor(pure=False), client.scheduler_comm

    def hand_out() -> None:
        # What has ended counts until the client has told the scheduler to forget it, which its own thread does a moment later:
        # when many end at once, their successors would otherwise be there before they are gone.
        for _ in range(min(len(todo), max(WAVE - len(client.futures), 0 if running else 1))):
            experiment = todo.popleft()
            future = executor.submit(work_elsewhere, experiment, folder, mark, download)
            running[future] = experiment
            future.add_done_callback(ended.put)

    write_atomically(store.folder / mark, "")
    try:
        hand_out()
        while running:
            try:
                future = ended.get(timeout=PATIENCE)
            except queue.Empty:
                if client.status == "running" and client.scheduler_comm is connection:
                    continue
                return  # dask has lost it, and has not told all futures
            if future.cancelled():
                return
            experiment = running.pop(future)
            if error := future.exception():
                outcome, made_from = _failed(experiment, error), None
            else:
                result, made_from = future.result()
                outcome = Outcome(experiment, result=result)
            del future  # the scheduler forgets what nobody holds; it is told so before it hears of the next one
            hand_out()
            if made_from is not None:
                store.add(experiment, outcome.result, made_from)
            yield outcome
    finally:
        todo.extendleft(reversed(running.values()))
        for future in running:  # lost, or the user stopped the sweep
            future.cancel()
        (store.folder / mark).unlink(missing_ok=True)


def _client(cluster: LocalCluster | str, scheduler: str | None) -> Client:
    try:
        return Client(cluster, timeout=PATIENCE)
    except NO_ANSWER as error:
        raise _silent(scheduler, error) from error


def _silent(scheduler: str | None, error: Exception) -> VlmlabError:
    return VlmlabError(
        f"no dask scheduler answers at {scheduler or 'this machine'} ({type(error).__name__}); "
        "start one with `dask scheduler`, or leave --scheduler out to use this machine"
    )


@contextlib.contextmanager
def _cluster(workers: int, scheduler: str | None) -> Iterator[LocalCluster | str]:
    """What a client connects to: the address of a scheduler, or processes of this machine meanwhile."""
    if scheduler:
        yield scheduler
        return
    try:
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",  # any free port: two sweeps on one machine must not be in each other's way
            silence_logs=50,  # workers that are shut down must not complain on the terminal
        )
    except NO_ANSWER as error:
        raise _silent(None, error) from error
    with cluster:
        yield cluster


def _failed(experiment: Experiment, error: BaseException) -> Outcome:
    if isinstance(error, KilledWorker):
        return Outcome(
            experiment,
            failure="the worker that ran it was killed again and again, most likely for want of memory; use fewer workers",
        )
    text = " ".join(str(error).split()) or type(error).__name__
    return Outcome(experiment, failure=text if isinstance(error, VlmlabError) else f"{type(error).__name__}: {text}")


def _told(outcome: Outcome, on_outcome: Callable[[Outcome], None] | None) -> Outcome:
    if on_outcome:
        on_outcome(outcome)
    return outcome
