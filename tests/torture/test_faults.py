"""Kills at random moments, full disks, caches that cannot be written, several processes in one place: the same bits at the end."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from tests.torture import LONG
from vlmlab.cli import main
from vlmlab.files import write_atomically
from vlmlab.studies.run import shared_bank, shared_dataset

KILLS = 20 if LONG else 1
TIMED = ("seconds", "cpu_seconds", "peak_mb")
SYSTEMS = "zero_shot,tip_adapter,coop" if LONG else "zero_shot,coop"
long = pytest.mark.skipif(not LONG, reason="make torture")
COMMAND = [
    "sweep", "--systems", SYSTEMS, "--datasets", "digits", "--shots", "2", "--seeds", "0,1" if LONG else "0", "--set", "coop.epochs=6",
    "--set", "coop.n_ctx=4", "--test-pictures", "100", "--workers", "0",
]  # fmt: skip
pytestmark = pytest.mark.slow


def vlmlab(*arguments: str, cache: Path, **more) -> subprocess.Popen:
    env = os.environ | {"VLMLAB_CACHE": str(cache), "OMP_NUM_THREADS": "1"} | more.pop("env", {})
    return subprocess.Popen(
        [sys.executable, "-c", "import sys; from vlmlab.cli import main; sys.exit(main())", *arguments],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more,
    )  # fmt: skip


def numbers(store: Path) -> dict[str, dict]:
    """The whole content of a store but what the clock and the machine's load decide."""
    content = {path.name: json.loads(path.read_text()) for path in store.glob("*.json")}
    for one in content.values():
        for name in TIMED:
            one["result"].pop(name)
    return content


def swept(store: Path, cache: Path) -> dict[str, dict]:
    """The `numbers` of COMMAND that runs to its end in this process, which has what a fresh one would read from the disk."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLMLAB_CACHE", str(cache))
        shared_bank.cache_clear(), shared_dataset.cache_clear()
        torch.set_num_threads(1)  # as in the processes that are killed
        try:
            assert main([*COMMAND, "--store", str(store)]) == 0
        finally:
            torch.set_num_threads(threads)
            shared_bank.cache_clear(), shared_dataset.cache_clear()
    return numbers(store)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> tuple[dict[str, dict], float]:
    """(what a sweep gives that nobody disturbs, its seconds)."""
    folder = tmp_path_factory.mktemp("unbroken")
    began = time.monotonic()
    return swept(folder / "store", folder / "cache"), time.monotonic() - began


def test_a_sweep_killed_at_random_moments_ends_with_the_same_bits(unbroken, tmp_path):
    expected, seconds = unbroken
    chance = random.Random(LONG)
    store, killed = tmp_path / "store", 0
    for _ in range(KILLS):
        process = vlmlab(*COMMAND, "--store", str(store), cache=tmp_path / "cache")
        # By what it has done, not by the clock: how fast a process is depends on what else the machine does.
        done = chance.randrange(len(expected))
        while process.poll() is None and len(list(store.glob("*.json"))) < done:
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        process.communicate()
        for path in store.glob("*.json"):
            json.loads(path.read_text())  # whole, or not there
        if LONG and len(list(store.glob("*.json"))) == len(expected):
            shutil.rmtree(store)  # begin again, with a cache that was killed as well
    assert swept(store, tmp_path / "cache") == expected and killed
    print(f"{killed} kills within {seconds:.0f} s each: the same bits")


@long
def test_two_processes_fill_one_cache_and_one_store(unbroken, tmp_path):
    expected, _ = unbroken
    both = [vlmlab(*COMMAND, "--store", str(tmp_path / "store"), cache=tmp_path / "cache") for _ in range(2)]
    for process in both:
        _, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
    assert numbers(tmp_path / "store") == expected
    assert not list(tmp_path.rglob("*.tmp"))


@long
def test_a_cache_that_cannot_be_written_changes_no_number(unbroken, tmp_path):
    expected, _ = unbroken
    (tmp_path / "file").write_text("")  # in the place of a folder: nobody can write below it, not even root
    process = vlmlab(*COMMAND, "--store", str(tmp_path / "store"), cache=tmp_path / "file" / "cache")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0 and "Traceback" not in err, err
    assert numbers(tmp_path / "store") == expected


FULL = """
import os, resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that a write beyond the limit fails as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
from vlmlab.cli import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("room", [0, pytest.param(40_000, marks=long)])
def test_a_disk_without_room_is_one_line(tmp_path, room):
    """`room`: bytes that a file may have; none, or too few for features."""
    process = subprocess.run(
        [sys.executable, "-c", FULL, str(room), *COMMAND[:-2], "--workers", "0", "--store", str(tmp_path / "store")],
        env=os.environ | {"VLMLAB_CACHE": str(tmp_path / "cache")}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert "Traceback" not in process.stderr
    last = process.stderr.splitlines()[-1]
    assert process.returncode == 2 and last.startswith("vlmlab: cannot ") and len(last) < 500
    assert not list(tmp_path.rglob("*.tmp")) and not list(tmp_path.rglob("*.json"))


def _fill(folder: str, number: int) -> None:
    for i in range(50):
        write_atomically(Path(folder) / f"{i % 5}.bin", bytes([number]) * 100_000)


def test_writers_that_are_killed_leave_whole_files(tmp_path):
    chance = random.Random(1)
    for round in range(30 if LONG else 4):
        writers = [multiprocessing.get_context("fork").Process(target=_fill, args=(str(tmp_path), n)) for n in (1, 2)]
        for writer in writers:
            writer.start()
        time.sleep(chance.uniform(0.0, 0.05))
        for writer in writers:
            psutil.Process(writer.pid).kill()
            writer.join()
        for path in tmp_path.glob("*.bin"):
            content = path.read_bytes()
            assert len(content) == 100_000 and len(set(content)) == 1, round
