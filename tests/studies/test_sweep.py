import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from vlmlab.errors import VlmlabError
from vlmlab.studies.experiment import Experiment, grid
from vlmlab.studies.store import ResultStore
from vlmlab.studies.sweep import MeasuredAgain, sweep


@pytest.fixture
def fake_runs(monkeypatch):
    """Experiments end at once: shots 13 fail by the user's fault, shots 14 by ours; the others give their seed."""
    ran = []

    def run(experiment, download=False, checkpoint=None):
        ran.append(experiment)
        if experiment.shots == 13:
            raise VlmlabError("thirteen shots;\n ask for fewer")
        if experiment.shots == 14:
            raise ZeroDivisionError("a defect")
        return {"metrics": {"accuracy": float(experiment.seed)}, "seed": experiment.seed}

    monkeypatch.setattr("vlmlab.studies.run.run_experiment", run)
    return ran


def test_every_experiment_is_run_once_and_told_in_order(tmp_path, fake_runs):
    experiments = grid(["coop"], ["digits"], seeds=[3, 1, 2])
    told = []
    outcomes = sweep([*experiments, experiments[0]], ResultStore(tmp_path), workers=0, on_outcome=told.append)
    assert [outcome.result["seed"] for outcome in outcomes] == [3, 1, 2, 3]
    assert len(fake_runs) == len(told) == 3 and not any(outcome.known for outcome in outcomes)


def test_what_is_in_the_store_is_not_run_again(tmp_path, fake_runs):
    store = ResultStore(tmp_path)
    sweep(grid(["coop"], ["digits"], seeds=[0, 1]), store, workers=0)
    outcomes = sweep(grid(["coop"], ["digits"], seeds=[0, 1, 2]), store, workers=0)
    assert [outcome.known for outcome in outcomes] == [True, True, False]
    assert [experiment.seed for experiment in fake_runs] == [0, 1, 2]


def test_what_changed_since_a_result_was_measured_is_told_once(tmp_path, fake_runs):
    (tmp_path / "pets" / "cat").mkdir(parents=True)
    (tmp_path / "pets" / "cat" / "1.png").write_bytes(b"one")
    experiments = grid(["coop"], [str(tmp_path / "pets")], seeds=[0, 1])
    sweep(experiments, ResultStore(tmp_path / "store"), workers=0)
    (tmp_path / "pets" / "cat" / "2.png").write_bytes(b"two")
    with pytest.warns(MeasuredAgain) as warned:
        outcomes = sweep(experiments, ResultStore(tmp_path / "store"), workers=0)
    why = f"{tmp_path / 'pets'} has changed: images 1 -> 2"
    assert [str(one.message) for one in warned] == [f"{why}; 2 results of {tmp_path / 'store'} to be measured again"]
    assert [(outcome.changed, outcome.known) for outcome in outcomes] == [(why, False)] * 2
    assert [outcome.changed for outcome in sweep(experiments, ResultStore(tmp_path / "store"), workers=0)] == [
        None,
        None,
    ]


def test_failures_are_kept_in_one_line_and_tried_again(tmp_path, fake_runs):
    store = ResultStore(tmp_path)
    experiments = grid(["coop"], ["digits"], shots=[1, 13, 14])
    for _ in range(2):
        fine, mistake, defect = sweep(experiments, store, workers=0)
        assert fine.result and fine.failure is None
        assert mistake.failure == store.failure(experiments[1]) == "thirteen shots; ask for fewer"
        assert defect.failure == "ZeroDivisionError: a defect" and defect.result is None
    assert [experiment.shots for experiment in fake_runs].count(1) == 1
    assert [experiment.shots for experiment in fake_runs].count(13) == 2


@pytest.mark.parametrize("content", [b"damaged", None])
def test_a_checkpoint_of_no_use_does_not_stop_a_sweep(tmp_path, content):
    store = ResultStore(tmp_path)
    quick, other = (
        Experiment("clip_adapter", "digits", shots=1, seed=0, config=(("epochs", n),), test_pictures=20) for n in (2, 1)
    )
    file = store.checkpoint(quick)
    if content:
        file.parent.mkdir()
        file.write_bytes(content)
    else:  # of another run
        from vlmlab.studies.run import run_experiment

        run_experiment(other, checkpoint=file)
    (outcome,) = sweep([quick], store, workers=0)
    assert outcome.failure is None and not file.exists()
    (unbroken,) = sweep([quick], ResultStore(tmp_path / "fresh"), workers=0)
    assert outcome.result["metrics"] == unbroken.result["metrics"]


def test_a_sweep_in_this_process_is_stopped_at_once_and_goes_on_later(tmp_path, fake_runs, monkeypatch):
    import _thread
    import threading

    from vlmlab.studies import run

    def stopped(experiment, download=False, checkpoint=None):
        if experiment.seed == 1:
            assert threading.current_thread() is threading.main_thread()
            _thread.interrupt_main()  # what Ctrl-C does
            time.sleep(20)
        return finished(experiment)

    finished = run.run_experiment
    experiments, told = grid(["coop"], ["digits"], seeds=[0, 1, 2]), []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may start us with SIGINT ignored
    try:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("vlmlab.studies.run.run_experiment", stopped)
            sweep(experiments, ResultStore(tmp_path), workers=0, on_outcome=told.append)
    finally:
        signal.signal(signal.SIGINT, before)
    assert [outcome.experiment.seed for outcome in told] == [0]
    assert [outcome.known for outcome in sweep(experiments, ResultStore(tmp_path), workers=0)] == [True, False, False]


def test_an_experiment_that_another_sweep_finished_meanwhile_is_not_run(tmp_path, fake_runs):
    store = ResultStore(tmp_path)
    first, second = grid(["coop"], ["digits"], seeds=[0, 1])

    def other_sweep(outcome):
        store.add(second, {"seed": "from the other sweep"})

    store.add(first, {"seed": 0})
    outcomes = sweep([first, second], store, workers=0, on_outcome=other_sweep)
    assert outcomes[1].result == {"seed": "from the other sweep"} and not fake_runs


def test_a_scheduler_that_does_not_answer_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("vlmlab.studies.sweep.PATIENCE", 1)
    with pytest.raises(VlmlabError, match="no dask scheduler answers at nowhere:1"):
        sweep(grid(["coop"], ["digits"]), ResultStore(tmp_path), scheduler="nowhere:1")


# --- killed ------------------------------------------------------------------------------------------------------------

EXPERIMENTS = [
    Experiment(system, "digits", shots=2, seed=seed, config=config, test_pictures=100)
    for seed in range(3)
    for system, config in (("coop", (("epochs", "4"), ("n_ctx", "4"))), ("tip_adapter", ()), ("zero_shot", ()))
]

SCRIPT = """
import sys
from tests.studies.test_sweep import EXPERIMENTS
from vlmlab.studies.store import ResultStore
from vlmlab.studies.sweep import MeasuredAgain, sweep
if __name__ == "__main__":
    sweep(EXPERIMENTS, ResultStore(sys.argv[1]), workers=1)
"""


def start(script: Path, folder: Path) -> subprocess.Popen:
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen([sys.executable, str(script), str(folder)], env=os.environ | {"PYTHONPATH": path}, cwd=root)


def numbers(folder: Path) -> dict[str, dict]:
    """Everything in the folder but what a clock or the machine's load decides."""
    content = {path.name: json.loads(path.read_text()) for path in folder.glob("*.json")}
    for one in content.values():
        for name in ("seconds", "cpu_seconds", "peak_mb"):
            one["result"].pop(name)
    return content


@contextlib.contextmanager
def one_thread():
    """As many threads as a worker has: the last bits of a sum depend on it."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_killed_in_the_middle_and_run_again_is_the_unbroken_sweep(tmp_path, monkeypatch):
    monkeypatch.setenv("VLMLAB_CACHE", str(tmp_path / "cache"))
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    broken, unbroken = tmp_path / "broken", tmp_path / "unbroken"

    process = start(script, broken)
    deadline = time.monotonic() + 600
    while len(list(broken.glob("*.json"))) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive, "workers must not outlive their sweep"
    before = numbers(broken)
    assert 2 <= len(before) < len(EXPERIMENTS)

    assert start(script, broken).wait(timeout=1200) == 0  # a busy machine is no failure
    after = numbers(broken)
    monkeypatch.setenv("VLMLAB_CACHE", str(tmp_path / "other cache"))
    with one_thread():
        sweep(EXPERIMENTS, ResultStore(unbroken), workers=0)
    assert after == numbers(unbroken) and len(after) == len(EXPERIMENTS)
    assert all(after[name] == content for name, content in before.items())
    assert not list(broken.rglob("*.pt")), "checkpoints of what has ended"


def test_two_sweeps_in_one_folder_lose_nothing(tmp_path, fake_runs):
    import threading

    experiments = grid(["coop"], ["digits"], seeds=range(8))
    halves = experiments[:6], experiments[2:]
    threads = [
        threading.Thread(target=sweep, args=(half, ResultStore(tmp_path)), kwargs={"workers": 0}) for half in halves
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result["seed"] for result in ResultStore(tmp_path).results()) == list(range(8))


WRITER = """
import sys
from vlmlab.studies.experiment import Experiment
from vlmlab.studies.store import ResultStore
store = ResultStore(sys.argv[1])
print("writing", flush=True)
while True:
    for seed in range(5):
        store.add(Experiment("coop", "digits", seed=seed), {"numbers": list(range(20000))})
"""


def test_a_kill_while_writing_leaves_whole_files(tmp_path):
    for delay in (0.0, 0.013, 0.031, 0.077):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
        writer.stdout.readline()
        time.sleep(delay)
        writer.kill()
        writer.wait()
        store = ResultStore(tmp_path)
        for result in store.results():
            assert len(result["numbers"]) == 20000
        experiment = Experiment("coop", "digits", seed=0)
        store.add(dataclasses.replace(experiment, seed=9), {"numbers": list(range(20000))})


def test_handing_out_work_does_not_import_torch():
    code = "import sys, vlmlab.studies.sweep, vlmlab.studies.store; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- a whole section ---------------------------------------------------------------------------------------------------


def test_a_section_is_its_systems_after_zero_shot():
    from vlmlab.studies.sweep import systems_of

    assert systems_of("6.3.2")[:1] == ["zero_shot"] and "tip_adapter" in systems_of("6.3.2")
    assert "coop" not in systems_of("6.3.2") and set(systems_of("6.3.2")) < set(systems_of("6"))
    with pytest.raises(VlmlabError, match=r"unknown section '6\.9'"):
        systems_of("6.9")
    with pytest.raises(VlmlabError, match="unknown section ''"):
        systems_of("")


def test_a_section_asks_only_what_makes_sense():
    from vlmlab.studies.sweep import suited

    every = suited(["zero_shot", "coop", "upl", "maskclip", "dualcoop"], shots=[1, 16], splits=["all", "base", "shift"])
    asked = {(e.system, e.dataset, e.shots, e.split) for e in every}
    assert len(asked) * 3 == len(every) == len({e.key for e in every})
    assert {e.dataset for e in every if e.system in ("maskclip", "dualcoop")} == {"tableau"}
    assert {e.shots for e in every if e.system in ("zero_shot", "upl", "maskclip")} == {0}
    assert {(e.shots, e.split) for e in every if e.system == "coop"} == {
        (1, "all"),
        (16, "all"),
        (16, "base"),
        (16, "shift"),
    }
    assert {e.dataset for e in every if e.split == "shift"} == {"objects"}
    datasets = {e.dataset for e in every if e.system == "coop"}
    assert {"digits", "objects-sketch", "aerial"} <= datasets and not datasets & {
        "tableau",
        "photographs",
        "caltech101",
    }
    trees = {e.dataset for e in suited(["protect"], shots=[1])}
    assert {"objects", "aerial"} <= trees and "digits" not in trees, "ProTeCt wants a class tree"
    (own,) = suited(["coop"], ["./images"], shots=[2], seeds=[1], config=lambda key: (("n_ctx", key),))
    assert own.config == (("n_ctx", "coop"),) and own.dataset.endswith("/images")


def test_fewer_workers_than_none_are_refused(tmp_path, fake_runs):
    with pytest.raises(VlmlabError, match="not -1"):
        sweep(grid(["coop"], ["digits"]), ResultStore(tmp_path), workers=-1)
    assert not fake_runs
