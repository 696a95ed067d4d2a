"""Reports, builds of weights and an installed vlmlab that are killed at random moments: whole files, and the same bits at the end.

Only `make torture` runs these; the short form kills a sweep (test_faults.py).
"""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.test_packaging import wheel  # noqa: F401 (a fixture)
from tests.torture.test_faults import TIMED, long

pytestmark = long

BUILD = """
import dataclasses, sys
from pathlib import Path
import torch
from vlmlab.pretraining import micro
torch.set_num_threads(1)  # with more, the order of a sum may differ from run to run
micro.CHECKPOINT_EVERY = 2
micro.token_vectors = lambda: torch.randn(49408, 8, generator=torch.Generator().manual_seed(0))
micro.RECIPES["micro-vit"] = dataclasses.replace(micro.RECIPES["micro-vit"], steps=12, pool=48, batch=16)
micro.build("micro-vit", workers=1, out=Path(sys.argv[1]))
"""
REPORT = [
    "report", "--systems", "tip_adapter,coop", "--datasets", "digits", "--shots", "1", "--seeds", "0", "--words", "cat",
    "--set", "workers=0", "--set", "base_new=",
]  # fmt: skip
RUN = [
    "sweep",
    "--systems",
    "zero_shot,coop",
    "--datasets",
    "digits",
    "--shots",
    "1",
    "--seeds",
    "0,1",
    "--workers",
    "0",
]
COMMAND_LINE = "import sys; from vlmlab.cli import main; sys.exit(main())"


def killed_again_and_again(
    command: list[str], env: dict[str, str], cwd: Path, kills: int, seconds: float, whole: Callable[[], None]
) -> int:
    """Start `command` and kill it within `seconds`, `kills` times, with a look at what it left; then let it end.

    How many of them were killed before they had ended.
    """
    chance, killed = random.Random(len(command)), 0
    for _ in range(kills):
        process = subprocess.Popen(command, env=env, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(chance.uniform(0, seconds))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        whole()
    subprocess.run(command, env=env, cwd=cwd, check=True, capture_output=True)
    return killed


def unbroken(command: list[str], env: dict[str, str], cwd: Path) -> float:
    """Seconds that `command` takes where nobody disturbs it."""
    began = time.monotonic()
    subprocess.run(command, env=env, cwd=cwd, check=True, capture_output=True)
    return time.monotonic() - began


def environment(cache: Path) -> dict[str, str]:
    return os.environ | {"VLMLAB_CACHE": str(cache), "OMP_NUM_THREADS": "1"}


def untimed(value: Any) -> Any:
    """`value` without what the clock and the machine's load decide."""
    if isinstance(value, list):
        return [untimed(one) for one in value]
    return {k: untimed(v) for k, v in value.items() if k not in TIMED} if isinstance(value, dict) else value


def read_whole(folder: Path, pattern: str) -> dict[str, dict]:
    """JSON files by name, without what the clock decides; fails where one is half written."""
    return {path.name: untimed(json.loads(path.read_text())) for path in folder.rglob(pattern)}


def test_a_report_that_is_killed_goes_on(tmp_path):
    def command(where: str) -> list[str]:
        return [sys.executable, "-c", COMMAND_LINE, *REPORT, "--out", str(tmp_path / where)]

    def measured(where: str) -> dict:
        return json.loads((tmp_path / where / "record.json").read_text())

    def whole() -> None:
        read_whole(tmp_path / "killed", ".running-*/results/*.json")
        made = {path.name for path in (tmp_path / "killed").glob("[!.]*")}
        if "report.html" in made:  # it comes last
            assert made == {"parameters.json", "record.json", "report.ipynb", "report.html"}
            assert (tmp_path / "killed" / "report.html").read_text().rstrip().endswith("</html>")
        for name in made - {"report.html"}:
            json.loads((tmp_path / "killed" / name).read_text())

    seconds = unbroken(command("calm"), environment(tmp_path / "calm-cache"), tmp_path)
    env = environment(tmp_path / "killed-cache")
    killed = killed_again_and_again(command("killed"), env, tmp_path, 10, seconds, whole)
    calm, after = (untimed(measured(where)) for where in ("calm", "killed"))
    assert killed and after == calm and calm["few_shot"]
    assert {path.name for path in (tmp_path / "killed").iterdir()} == {
        path.name for path in (tmp_path / "calm").iterdir()
    }
    print(f"report: {killed} kills within {seconds:.0f} s each: the same bits")


def test_a_build_of_weights_that_is_killed_goes_on(tmp_path):
    def bits(where: str) -> dict[str, str]:
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in (tmp_path / where).glob("*.safetensors")
        }

    def command(where: str) -> list[str]:
        (tmp_path / where).mkdir(exist_ok=True)
        return [sys.executable, "-c", BUILD, str(tmp_path / where)]

    seconds = unbroken(command("calm"), environment(tmp_path / "calm-cache"), tmp_path)
    names = {path.name for path in (tmp_path / "calm").iterdir()}

    def whole() -> None:
        assert {path.name for path in (tmp_path / "killed").iterdir() if path.suffix != ".tmp"} <= names

    killed = killed_again_and_again(
        command("killed"), environment(tmp_path / "killed-cache"), tmp_path, 15, seconds, whole
    )
    assert killed and bits("killed") == bits("calm") != {}
    print(f"build: {killed} kills within {seconds:.0f} s each: the same bits")


def test_an_installed_vlmlab_that_is_killed_goes_on(wheel, tmp_path):  # noqa: F811 (the fixture)
    def env(where: str) -> dict[str, str]:
        plain = {
            name: value for name, value in environment(tmp_path / f"{where}-cache").items() if name != "PYTHONPATH"
        }
        return plain | {"PYTHONPATH": str(wheel)}

    def command(where: str) -> list[str]:
        return [sys.executable, str(wheel / "bin" / "vlmlab"), *RUN, "--store", str(tmp_path / where)]

    seconds = unbroken(command("calm"), env("calm"), tmp_path)
    killed = killed_again_and_again(
        command("killed"), env("killed"), tmp_path, 5, seconds, lambda: read_whole(tmp_path / "killed", "*.json")
    )
    assert killed and read_whole(tmp_path / "killed", "*.json") == read_whole(tmp_path / "calm", "*.json") != {}
    print(f"wheel: {killed} kills within {seconds:.0f} s each: the same bits")
