"""A real dask scheduler whose workers do not share the client's disk, lose their lives, and do not see its folders."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import distributed
import psutil
import pytest

from tests.datasets.conftest import save_picture
from tests.torture import LONG
from vlmlab.studies import sweep as sweeps
from vlmlab.studies.experiment import Experiment, grid
from vlmlab.studies.store import ResultStore
from vlmlab.studies.sweep import sweep

PLANNED = int(os.environ.get("VLMLAB_PLANNED", 100_000 if LONG else 200))
pytestmark = pytest.mark.slow

# Workers run the experiments of these tests at once, or after a moment, and write down that they did. The module that runs real
# ones is not imported: torch and what else it needs take ten seconds of every worker that is started.
PRELOAD = """
import os, sys, time, types
from pathlib import Path

def run_experiment(experiment, download=False, checkpoint=None):
    if experiment.noise:
        open(Path(os.environ["TRACES"]) / f"{os.getpid()}.{experiment.seed}", "w").close()
        time.sleep(10 * experiment.noise)
    return {"metrics": {"accuracy": 50.0}, "zero_shot": {}, "seed": experiment.seed, "where": os.getcwd()}

run = sys.modules["vlmlab.studies.run"] = types.ModuleType("vlmlab.studies.run")
run.run_experiment = run_experiment
"""


@contextlib.contextmanager
def cluster(folder: Path, workers: int = 2):
    """The address of a scheduler with workers that live in folders of their own; and the processes of the workers."""
    (folder / "quick.py").write_text(PRELOAD)
    (folder / "traces").mkdir(exist_ok=True)
    env = os.environ | {"TRACES": str(folder / "traces"), "VLMLAB_CACHE": str(folder / "cache")}
    started = []

    def start(*command: str, cwd: Path) -> subprocess.Popen:
        cwd.mkdir(exist_ok=True)
        log = open(cwd / "log", "w")
        started.append(
            subprocess.Popen([sys.executable, "-m", "dask", *command], cwd=cwd, env=env, stdout=log, stderr=log)
        )
        return started[-1]

    place = folder / "scheduler.json"
    start(
        "scheduler",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--no-dashboard",
        "--scheduler-file",
        str(place),
        cwd=folder / "s",
    )
    hands = [
        start("worker", "--scheduler-file", str(place), "--nthreads", "1", "--no-dashboard", "--preload", str(folder / "quick.py"),
              "--local-directory", str(folder / f"scratch{i}"), cwd=folder / f"w{i}")
        for i in range(workers)
    ]  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not place.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        import json

        yield json.loads(place.read_text())["address"], hands, started[0]
    finally:
        for process in started:
            for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else ():
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cluster")
    with cluster(folder) as (address, hands, scheduler):
        yield folder, address, hands, scheduler


def elsewhere(monkeypatch) -> None:
    """Workers look for the mark of the store where there is none, as on a machine with another disk."""
    real = sweeps.write_atomically
    monkeypatch.setattr(
        sweeps, "write_atomically", lambda path, text: real(path, text) if ".sweep-" not in str(path) else path
    )


def test_results_of_workers_with_another_disk_come_back(running, tmp_path, monkeypatch):
    _, address, *_ = running
    elsewhere(monkeypatch)
    store = ResultStore(tmp_path / "store")
    outcomes = sweep(grid(["coop"], ["digits"], seeds=range(6)), store, scheduler=address)
    assert [outcome.result["seed"] for outcome in outcomes] == list(range(6))
    assert sorted(path.suffix for path in store.folder.iterdir()) == [".json"] * 6, "and nothing else is left"
    assert all(outcome.known for outcome in sweep([o.experiment for o in outcomes], store, scheduler="nobody:1"))


def test_a_folder_that_a_worker_does_not_see_is_told_in_one_line(running, tmp_path):
    _, address, *_ = running
    for i in range(4):
        save_picture(tmp_path / "pets" / ("cat", "dog")[i % 2] / f"{i}.png")
    experiment = Experiment("zero_shot", str(tmp_path / "pets"), shots=0)
    os.rename(tmp_path / "pets", tmp_path / "here_only")
    lost = Experiment("zero_shot", "digits", f"ViT-B-32@{tmp_path / 'w.pt'}", shots=0)
    first, second = sweep([experiment, lost], ResultStore(tmp_path / "store"), scheduler=address)
    assert "does not see" in first.failure and str(tmp_path / "pets") in first.failure and "\n" not in first.failure
    assert "does not see" in second.failure and "w.pt" in second.failure


def test_a_worker_that_is_killed_loses_nothing(running, tmp_path):
    folder, address, *_ = running
    experiments = grid(["coop"], ["digits"], seeds=range(100, 104), noise=0.1)
    victims = []

    def kill_one() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for trace in (folder / "traces").glob("*.10?"):
                pid = int(trace.name.partition(".")[0])
                victims.append(pid)
                os.kill(pid, signal.SIGKILL)
                return
            time.sleep(0.02)

    killer = threading.Thread(target=kill_one)
    killer.start()
    outcomes = sweep(experiments, ResultStore(tmp_path / "store"), scheduler=address)
    killer.join()
    assert len(victims) == 1 and [outcome.failure for outcome in outcomes] == [None] * 4
    runs = [trace.name.partition(".")[2] for trace in (folder / "traces").glob("*.10?")]
    assert len(runs) >= 5, "what the killed one had begun is run again"


# A client that stumbled tells it once more when it is thrown away.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("told", [True, False])
def test_a_lost_connection_loses_no_experiment(told, running, tmp_path, monkeypatch):
    """As a client loses it whose machine has so much to do that nobody reads for half a minute.

    Dask tells the futures, unless one is handed out at this very moment: then it stumbles over its own list of them.
    """
    _, address, *_ = running
    if not told:

        async def stumble(self):
            self.status, self.scheduler_comm = "connecting", None
            raise RuntimeError("dictionary changed size during iteration")

        monkeypatch.setattr(distributed.Client, "_reconnect", stumble)
        monkeypatch.setattr(sweeps, "PATIENCE", 2)
    monkeypatch.setattr(sweeps, "WAVE", 20)
    elsewhere(monkeypatch)
    clients, ended = [], []

    def cut(outcome) -> None:
        ended.append(outcome.experiment.seed)
        if len(ended) in (10, 30):
            client = distributed.default_client()
            clients.append(client)
            client.loop.add_callback(client.scheduler_comm.comm.abort)

    store = ResultStore(tmp_path / "store")
    outcomes = sweep(grid(["coop"], ["digits"], seeds=range(60)), store, scheduler=address, on_outcome=cut)
    assert [outcome.failure for outcome in outcomes] == [None] * 60 and len(set(clients)) == 2
    assert sorted(ended) == list(range(60)), "and each is told once"


def test_a_scheduler_that_is_gone_is_told(running, tmp_path, monkeypatch):
    """What had ended before is kept."""
    monkeypatch.setattr(sweeps, "WAVE", 20)
    monkeypatch.setattr(sweeps, "PATIENCE", 2)
    elsewhere(monkeypatch)
    with cluster(tmp_path, workers=1) as (address, _, scheduler):
        store = ResultStore(tmp_path / "store")

        def gone(outcome) -> None:
            if scheduler.poll() is None:
                scheduler.kill()
                scheduler.wait()

        outcomes = sweep(grid(["coop"], ["digits"], seeds=range(40)), store, scheduler=address, on_outcome=gone)
    ended = [outcome for outcome in outcomes if outcome.failure is None]
    lost = {outcome.failure for outcome in outcomes} - {None}
    assert 0 < len(ended) < 40 and lost == {"the scheduler has lost it; run the sweep again"}
    assert all(store.get(outcome.experiment) for outcome in ended)


def test_many_planned_experiments_keep_client_and_scheduler_small(running, tmp_path, monkeypatch):
    """Only a wave of them is known to the scheduler at a time."""
    _, address, _, scheduler = running
    monkeypatch.setattr(sweeps, "WAVE", 1000 if PLANNED > 1000 else 50)
    elsewhere(monkeypatch)
    store = ResultStore(tmp_path / "store")
    if LONG:  # the disk's speed is not the question
        monkeypatch.setattr(store, "add", lambda *_: None)
    watched, here = psutil.Process(scheduler.pid), psutil.Process()
    sizes, known, count = [], [], [0]
    from distributed import Client

    with Client(address) as client:

        def tasks() -> int:
            return client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))

        others = (
            tasks()
        )  # of clients that stumbled in a test before this one, and hold what they handed out until the process ends

        def watch(outcome) -> None:
            assert outcome.failure is None
            count[0] += 1
            if count[0] % (PLANNED // 20) == 0:
                known.append(tasks() - others)
                sizes.append((watched.memory_info().rss / 2**20, here.memory_info().rss / 2**20))

        outcomes = sweep(grid(["coop"], ["digits"], seeds=range(PLANNED)), store, scheduler=address, on_outcome=watch)
    # One more where all of a wave have ended at once and none is forgotten yet: something must be under way.
    assert len(outcomes) == PLANNED and max(known) <= sweeps.WAVE + 1
    growth = sizes[-1][0] - sizes[2][0]
    print(f"{PLANNED} planned: at most {max(known)} tasks; scheduler {sizes[2][0]:.0f} -> {sizes[-1][0]:.0f} MiB, "
          f"client {sizes[2][1]:.0f} -> {sizes[-1][1]:.0f} MiB")  # fmt: skip
    assert growth < 100
