"""Marking the exercises of a course: what `vlmlab grade` does.

A submission is a chapter's notebook with a student's answers. It is run again from top to bottom, in a kernel of its own and with
panels that stand still, because saved outputs say what was once true; then the kernel is asked what `check` found. A cell
that fails does not end the run, and the file is not changed.

A submission is somebody else's code: it can do what you can do on this machine, and can also write what it likes about itself.
Solutions are folded below every exercise, so a mark says who went through a chapter, not who knows it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from vlmlab.book.execute import STILL, ask, at_once, client_of
from vlmlab.book.exercise import chapter_of, exercises
from vlmlab.datasets.listing import files_below
from vlmlab.errors import VlmlabError
from vlmlab.files import expanded

CALL = re.compile(r"""\bcheck\(\s*["']([^"']+)["']""")
GIVEN = """
import json
from vlmlab.book.exercise import given
print(json.dumps(given()))
"""
CELL_LIMIT = 300  # seconds; an answer that never ends must not hold up the class


@dataclasses.dataclass(frozen=True)
class Graded:
    """One submission.

    Attributes:
        path: the notebook.
        states: of every exercise of its chapter: "right", "wrong", "open" (not started), or "missing" (never checked).
        failed_cells: how many cells raised an error or ran out of time.
        failure: why nothing could be said at all, in one line, or "".
    """

    path: Path
    states: dict[str, str]
    failed_cells: int = 0
    failure: str = ""

    def row(self) -> dict:
        """As a line of the table that `vlmlab grade` prints."""

        def which(state: str) -> str:
            return " ".join(key for key, value in self.states.items() if value == state)

        return {
            "submission": str(self.path),
            "right": list(self.states.values()).count("right"),
            "of": len(self.states),
            "wrong": which("wrong"),
            "not_started": which("open"),
            "missing": which("missing"),
            "failed_cells": self.failed_cells,
            "failure": self.failure,
        }


def submissions(paths: Sequence[Path | str]) -> list[Path]:
    """The notebooks among `paths`, and those in its folders, at any depth, each once.

    What editors and a Mac's archives leave behind (.ipynb_checkpoints, __MACOSX, ._NAME.ipynb) is no submission.
    Raises `VlmlabError` for a path that is empty or not there, and if there is no notebook.
    """
    found: dict[str, Path] = {}
    if "" in paths:  # as a Path it would be the current folder, whatever lies there
        raise VlmlabError("the path of a submission is empty; name notebooks, or folders that hold some")
    for path in map(expanded, paths):
        if not os.path.exists(path):
            raise VlmlabError(f"there is no {path}; name notebooks, or folders that hold some")
        inside = files_below(path) if os.path.isdir(path) else [path]
        for one in inside:
            if one is path or one.suffix.lower() == ".ipynb":
                found.setdefault(os.path.realpath(one), one)
    if not found:
        raise VlmlabError(f"there is no notebook (.ipynb) in {', '.join(map(str, paths))}")
    return list(found.values())


def grade(
    paths: Sequence[Path | str], on_start: Callable[[str], None] | None = None, workers: int = 1
) -> Iterator[Graded]:
    """Run submissions and mark them, `workers` at a time, as they come; see `submissions` for the errors."""
    return at_once(graded, submissions(paths), on_start, workers)


def graded(path: Path) -> Graded:
    """Run one submission and mark it; whatever is wrong with it stands in the result."""
    import nbformat
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    try:
        notebook = nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises errors of many libraries for what is no notebook
        return Graded(path, {}, failure=f"is no notebook ({type(error).__name__})")
    asked = {key for cell in notebook.cells if cell.cell_type == "code" for key in CALL.findall(cell.source)}
    wanted = expected(asked)
    if not wanted:
        return Graded(path, {}, failure="checks no exercise of the book")
    client = client_of(notebook, path.parent, CELL_LIMIT, allow_errors=True, interrupt_on_timeout=True)
    states: dict[str, str] = {}  # as they were when the kernel could last be asked
    failure = ""
    try:
        with client.setup_kernel(env=os.environ | {"VLMLAB_STATIC": STILL["VLMLAB_STATIC"]}):
            for place, cell in enumerate(list(notebook.cells)):
                client.execute_cell(cell, place)
                if cell.cell_type == "code" and CALL.search(cell.source):
                    with contextlib.suppress(AttributeError, IndexError, ValueError):
                        states = ask(client, GIVEN)
            states = ask(client, GIVEN)
    except (AttributeError, IndexError, ValueError):
        # It is somebody else's code, and may have replaced anything.
        failure = "left print or json unusable"
    except (DeadKernelError, CellTimeoutError):
        failure = "its kernel died"
    except RuntimeError as error:  # jupyter_client's
        failure = f"its kernel did not start ({' '.join(str(error).split())})"
    failed = sum(any(one.output_type == "error" for one in cell.get("outputs", ())) for cell in notebook.cells)
    return Graded(path, {key: states.get(key, "missing") for key in wanted}, failed, failure)


def expected(asked: set[str]) -> list[str]:
    """All exercises of the chapter that most of the keys belong to: an exercise that was cut out counts, too."""
    known = {key for chapter in set(map(chapter_of, asked)) for key in exercises(chapter)}
    chapters = Counter(chapter_of(key) for key in asked if key in known)
    if not chapters:
        return []
    (chapter, _), *_ = chapters.most_common(1)
    return list(exercises(chapter))
