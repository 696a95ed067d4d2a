"""Executing chapters: what `vlmlab book` does.

A chapter runs in a kernel of its own, from top to bottom, with panels that stand still and errors that stop it
(VLMLAB_STATIC, VLMLAB_STRICT). Only a chapter that went through is written back, in one piece; one that failed stays as it was.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import TypeVar

from vlmlab.datasets.listing import spelled
from vlmlab.errors import VlmlabError, unknown
from vlmlab.files import shipped, without_main_module, write_atomically

T = TypeVar("T")

NOTEBOOKS = shipped("notebooks")
TIMEOUT = 600  # seconds of one cell
STILL = {"VLMLAB_STATIC": "1", "VLMLAB_STRICT": "1"}
"""Environment in which panels are images and their errors fail the cell; nbval needs the same."""

COST = """
import json, time
from vlmlab.learning.memory import resident_peak_mb
print(json.dumps([time.process_time(), resident_peak_mb()]))
"""
"""Run in a chapter's kernel after its last cell, and not kept."""


@dataclasses.dataclass(frozen=True)
class Executed:
    """What a chapter took, and what is wrong with it.

    Attributes:
        seconds: by the clock, start of the kernel included; cpu_seconds: of the kernel, all threads.
        peak_mb: largest memory of the kernel; kb: size of the notebook on the disk.
        failure: the error of the cell that failed, in one line, or "".
        faults: where the chapter breaks the recipe; close: facts that nearly round to something else.
    """

    chapter: str
    cells: int
    seconds: float
    cpu_seconds: float
    peak_mb: float
    kb: int
    failure: str = ""
    faults: tuple[str, ...] = ()
    close: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.failure and not self.faults


def chapters(folder: Path | None = None) -> dict[str, Path]:
    """The chapters of `folder` (default: those that come with vlmlab) by name, in order."""
    return {path.stem: path for path in sorted((folder or NOTEBOOKS).glob("*.ipynb"))}


def chosen(names: Sequence[str], folder: Path | None = None) -> dict[str, Path]:
    """The chapters of these names (all, if there are none); the beginning of a name is enough.

    Raises `VlmlabError` for a name that fits no chapter.
    """
    known = chapters(folder)
    if not known:
        raise VlmlabError(f"there are no chapters in {folder or NOTEBOOKS}; get the repository's notebooks/ again")
    found: dict[str, Path] = {}
    for name in names:
        asked = Path(name).name.removesuffix(".ipynb")
        fitting = {stem: path for stem, path in known.items() if stem.startswith(asked)}
        if not asked or not fitting:
            raise unknown("chapter", name, known)
        found |= fitting
    return found or known


def book(
    names: Sequence[str] = (),
    on_start: Callable[[str], None] | None = None,
    workers: int = 1,
    folder: Path | None = None,
) -> Iterator[Executed]:
    """Execute chapters of `folder` and write them back in their committed form, in the order in which they end.

    Without a folder they are those of `notebooks/`. With several `workers`, so many chapters run at once, with one thread
    each. See `chosen` for the names and errors.
    """
    return at_once(execute, chosen(names, folder).values(), on_start, workers)


def at_once(
    work: Callable[[Path], T],
    paths: Iterable[Path],
    on_start: Callable[[str], None] | None = None,
    workers: int = 1,
) -> Iterator[T]:
    """`work` on every notebook, `workers` of them at a time, each in a process of its own; results as they come.

    `on_start` is told the name of each when its turn comes.
    """
    start = on_start or (lambda name: None)
    todo = iter(paths)
    if workers == 1:
        for path in todo:
            start(spelled(path.stem))
            yield work(path)
        return
    # "spawn": a fork would take over the threads of whoever calls.
    with without_main_module(), ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _one_thread) as pool:
        running: set[Future] = set()
        while True:
            for path in itertools.islice(todo, workers - len(running)):
                start(spelled(path.stem))
                running.add(pool.submit(work, path))
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()


def _one_thread() -> None:
    """For this process and the kernels that it starts."""
    os.environ["OMP_NUM_THREADS"] = "1"


def execute(path: Path) -> Executed:
    """Execute one chapter; it is only written if every cell went through."""
    # Imported here: the recipe's exercises need torch, and a misspelt chapter should be told at once.
    import nbformat
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    from vlmlab.book.normalise import normalise
    from vlmlab.book.recipe import faults

    notebook = nbformat.read(path, as_version=4)
    client = client_of(notebook, path.parent)
    cells = sum(cell.cell_type == "code" for cell in notebook.cells)
    began, cost, failure, last = time.perf_counter(), [0.0, 0.0], "", 0
    try:
        with client.setup_kernel(env=os.environ | STILL):
            try:
                for last, cell in enumerate(notebook.cells):
                    client.execute_cell(cell, last)
                cost = ask(client, COST)
            except CellExecutionError as error:
                failure = f"cell {last + 1} raised {error.ename}: {' '.join(str(error.evalue).split())}"
            except (CellTimeoutError, DeadKernelError) as error:
                failure = f"cell {last + 1}: {' '.join(str(error).split())}"
            except KeyboardInterrupt:
                logging.disable()  # the kernel goes now, and who talks to it would complain on the terminal
                raise
    except RuntimeError as error:  # jupyter_client's, where a kernel does not start
        failure = f"its kernel did not start: {' '.join(str(error).split())}"
    seconds = time.perf_counter() - began
    if not failure:
        text = nbformat.writes(normalise(notebook)) + "\n"
        if text != path.read_text(encoding="utf-8"):
            write_atomically(path, text)
    return Executed(
        chapter=path.stem,
        cells=cells,
        seconds=round(seconds, 1),
        cpu_seconds=round(cost[0], 1),
        peak_mb=round(cost[1]),
        kb=round(path.stat().st_size / 1024),
        failure=failure,
        faults=() if failure else tuple(faults(path)),
        close=() if failure else tuple(close_calls(notebook)),
    )


def close_calls(notebook) -> Iterator[str]:
    """Facts that another processor may round to something else: within a twentieth of a step of the next one."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            for name, margin in output.get("metadata", {}).get("vlmlab", {}).get("margins", {}).items():
                if margin < 0.05:
                    yield f"the fact '{name}' is {margin:.0%} of a step from another value; choose another step"


def client_of(notebook, folder: Path, timeout: int = TIMEOUT, **more):
    """An nbclient of a notebook that runs in `folder`, `timeout` seconds per cell; `more` goes to the client."""
    from nbclient import NotebookClient

    from vlmlab.studies.kernel import OwnKernel

    return NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        kernel_manager_class=OwnKernel,
        record_timing=False,
        store_widget_state=False,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
        resources={"metadata": {"path": str(folder)}},
        **more,
    )


def ask(client, source: str):
    """What a cell prints as JSON after the last cell of a running notebook; the cell is not kept."""
    import nbformat

    cell = nbformat.v4.new_code_cell(source)
    client.nb.cells.append(cell)
    client.execute_cell(cell, len(client.nb.cells) - 1)
    client.nb.cells.pop()
    return json.loads(cell.outputs[-1].text.splitlines()[-1])
