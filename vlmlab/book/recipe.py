"""What every chapter must have: the recipe, as a list of faults.

The tests hold all chapters to it, and `vlmlab book` prints what is wrong. The recipe itself stands in words in
`notebooks/README.md`.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

from vlmlab.book.exercise import chapter_of, exercises
from vlmlab.views import style

MOST_KB = 1536
OBJECTIVES = (3, 5)
SCRATCH_LINES = (15, 40)
"""Lines of code, comments included, of the cell that builds the system from scratch."""
SECTIONS = ("Objectives", "The idea", "What breaks it", "Exercises", "Published and measured", "Summary", "References")
"""Headings of the second level that a chapter has, in this order, with others between."""
COLUMNS = 100
"""Characters of a line of code: what a page of 1280 pixels shows without a scrollbar."""
ALT_AT_LEAST = 20  # letters: "figure" is no description
UNREADABLE_MAPS = (
    "jet",
    "rainbow",
    "hsv",
    "gist_rainbow",
    "nipy_spectral",
    "turbo",
    "RdYlGn",
    "Set1",
    "tab10",
    "tab20",
)
"""Colour maps of matplotlib that colour-blind readers cannot follow."""
FACTS = "# NBVAL_CHECK_OUTPUT"


def faults(path: Path) -> list[str]:
    """Where the chapter in this file breaks the recipe, one line each; empty if it does not."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    found = list(faults_of(notebook))
    kb = path.stat().st_size / 1024
    if kb > MOST_KB:
        found.append(f"the notebook has {kb:.0f} kB, more than {MOST_KB}; make its images smaller")
    return found


def faults_of(notebook: dict) -> Iterator[str]:
    """The same of a notebook's content."""
    cells = [_Cell(cell) for cell in notebook["cells"]]
    yield from _head(cells)
    yield from _sections(cells)
    yield from _objectives(cells)
    yield from _widths(cells)
    yield from _scratch(cells)
    yield from _exercises(cells)
    yield from _facts(cells)
    yield from _references(cells)
    yield from _figures(cells)
    yield from _colours(cells)
    yield from _state(notebook, cells)


class _Cell:
    def __init__(self, cell: dict) -> None:
        self.raw = cell
        self.code = cell["cell_type"] == "code"
        self.text = "".join(cell["source"])
        self.outputs = cell.get("outputs", [])
        self.tags = cell.get("metadata", {}).get("tags", [])


def _head(cells: list[_Cell]) -> Iterator[str]:
    first = cells[0].text if cells else ""
    if not first.startswith("# "):
        yield "the first cell has no title (# ...)"
    if not re.search(r"[Ss]urvey section", first):
        yield "the first cell does not say the survey section"
    if not re.search(r"\d+ minutes", first):
        yield "the first cell does not say how many minutes the chapter takes"


def _headings(cells: list[_Cell]) -> list[str]:
    return [h for cell in cells if not cell.code for h in re.findall(r"^## (.+?)\s*$", cell.text, re.M)]


def _sections(cells: list[_Cell]) -> Iterator[str]:
    headings = _headings(cells)
    places = []
    for section in SECTIONS:
        fitting = [i for i, heading in enumerate(headings) if heading.startswith(section)]
        if not fitting:
            yield f"there is no section '## {section}'"
        else:
            places.append(fitting[-1])
    if places != sorted(places):
        yield f"the sections are not in the order {', '.join(SECTIONS)}"


def _section(cells: list[_Cell], start: str) -> str:
    """The Markdown under the heading that starts with `start`."""
    text = "\n".join(cell.text for cell in cells if not cell.code)
    match = re.search(rf"^## {re.escape(start)}.*?$(.*?)(?=^## |\Z)", text, re.M | re.S)
    return match.group(1) if match else ""


def _objectives(cells: list[_Cell]) -> Iterator[str]:
    items = re.findall(r"^\d+\. (.+(?:\n(?!\d+\. |\n).+)*)", _section(cells, "Objectives"), re.M)
    low, high = OBJECTIVES
    if not low <= len(items) <= high:
        yield f"there are {len(items)} objectives (a numbered list); a chapter has {low} to {high}"
    numbers = {int(n) for n, _, _ in _exercise_headings(cells)}
    for i, item in enumerate(items, 1):
        named = {int(n) for n in re.findall(r"exercises? (\d+)", item)}
        if not named:
            yield f"objective {i} names no exercise that tests it, such as (exercise 2)"
        for n in sorted(named - numbers):
            yield f"objective {i} names exercise {n}, which does not exist"


def _widths(cells: list[_Cell]) -> Iterator[str]:
    for place, cell in enumerate(cells, 1):
        longest = max(map(len, cell.text.splitlines()), default=0) if cell.code else 0
        if longest > COLUMNS:
            yield f"cell {place} has a line of {longest} columns; code has at most {COLUMNS}"


def _scratch(cells: list[_Cell]) -> Iterator[str]:
    scratch = [cell for cell in cells if "scratch" in cell.tags]
    if not scratch:
        yield "no cell is tagged 'scratch': the system in a few lines of one's own"
    for cell in scratch:
        lines = len([line for line in cell.text.splitlines() if line.strip()])
        if not SCRATCH_LINES[0] <= lines <= SCRATCH_LINES[1]:
            yield f"the scratch cell has {lines} lines; it should have {SCRATCH_LINES[0]} to {SCRATCH_LINES[1]}"
        if ".shape" not in cell.text:
            yield "the scratch cell checks no shape"
    parity = [cell for cell in cells if "parity" in cell.tags]
    if not any("assert" in cell.text for cell in parity):
        yield "no cell tagged 'parity' asserts that the scratch cell and the package agree"
    if not any(re.search(r"\bsource\(", cell.text) for cell in cells if cell.code):
        yield "the package's code is not shown live: source(...)"


def _exercise_headings(cells: list[_Cell]) -> list[tuple[str, str, str]]:
    """(number, title, text up to the next heading) of the exercises."""
    text = "\n".join(cell.text for cell in cells if not cell.code)
    return re.findall(r"^### Exercise (\d+): (.+?)$(.*?)(?=^#{1,3} |\Z)", text, re.M | re.S)


def _exercises(cells: list[_Cell]) -> Iterator[str]:
    headings = _exercise_headings(cells)
    if len(headings) < 3:
        yield f"there are {len(headings)} exercises (### Exercise 1: ...); a chapter has at least 3"
    for i, (n, title, text) in enumerate(headings, 1):
        if int(n) != i:
            yield f"exercise '{title}' has number {n}; it is the {i}. one"
        if not re.search(r"[●○]{5}", text):
            yield f"exercise {n} does not say how difficult it is (●●○○○)"
        if not re.search(r"\d+ minutes", text):
            yield f"exercise {n} does not say how many minutes it takes"
    keys = [key for cell in cells if cell.code for key in re.findall(r"\bcheck\(\s*[\"']([^\"']+)[\"']", cell.text)]
    if len(keys) < len(headings):
        yield f"{len(headings)} exercises have {len(keys)} checks"
    known = {key: one for chapter in set(map(chapter_of, keys)) for key, one in exercises(chapter).items()}
    for key in keys:
        if key not in known:
            yield f'check("{key}") is not among the exercises of vlmlab/book/exercises'
        elif len(known[key].hints) != 2 or not all(known[key].hints):
            yield f"exercise {key} does not have two hints"


def _facts(cells: list[_Cell]) -> Iterator[str]:
    marked = [cell for cell in cells if cell.code and FACTS in cell.text]
    if len(marked) != 1:
        yield f"{len(marked)} cells are marked {FACTS}; a chapter ends in exactly one"
    for cell in marked:
        if not any("text/plain" in output.get("data", {}) or "text" in output for output in cell.outputs):
            yield "the facts cell has no output; execute the chapter with vlmlab book"


def _references(cells: list[_Cell]) -> Iterator[str]:
    if not re.search(r"arxiv\.org/abs/|doi\.org/", _section(cells, "References")):
        yield "the references link no paper (arxiv.org/abs/... or doi.org/...)"


def _figures(cells: list[_Cell]) -> Iterator[str]:
    shown = 0
    for place, cell in enumerate(cells, 1):
        for output in cell.outputs:
            for kind in ("image/png", "image/jpeg"):
                if kind in output.get("data", {}):
                    shown += 1
                    alt = output.get("metadata", {}).get(kind, {}).get("alt", "")
                    if len(alt) < ALT_AT_LEAST:
                        yield f"a figure of cell {place} has no description (alt text); use .described('...')"
            for tag in re.findall(r"<img\b[^>]*>", "".join(output.get("data", {}).get("text/html", ""))):
                shown += 1
                if len(re.findall(r"alt=\"([^\"]*)\"", tag) or [""]) and not re.search(r"alt=\"[^\"]{8,}\"", tag):
                    yield f"an <img> of cell {place} has no description (alt text)"
        if not cell.code:
            for alt in re.findall(r"!\[([^\]]*)\]\(", cell.text):
                if len(alt) < ALT_AT_LEAST:
                    yield f"an image of cell {place} has no description (alt text)"
    if not shown:
        yield "there is no figure among the outputs"


def _colours(cells: list[_Cell]) -> Iterator[str]:
    ours = {colour.lower() for colour in palette()}
    for place, cell in enumerate(cells, 1):
        if not cell.code:
            continue
        for colour in re.findall(r"[\"'](#[0-9a-fA-F]{6})[\"']", cell.text):
            if colour.lower() not in ours:
                yield f"cell {place} uses the colour {colour}, which is not in vlmlab.views.style"
        for word in _strings(cell.text):
            if word in UNREADABLE_MAPS:
                yield f"cell {place} uses the colour map {word}, which colour-blind readers cannot follow; use cividis"


def palette() -> set[str]:
    """Every colour that vlmlab draws with."""
    single = {style.INK, style.MUTED, style.GRID, style.LOSS, style.VALUE, style.RIGHT, style.WRONG}
    return {*style.SYSTEMS, *style.CLASSES, *style.SPLITS.values(), *style.FAMILIES.values(), *single}


def _strings(code: str) -> Iterator[str]:
    try:
        tree = ast.parse(code)
    except SyntaxError:  # a magic command
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _state(notebook: dict, cells: list[_Cell]) -> Iterator[str]:
    if "widgets" in notebook["metadata"]:
        yield "the notebook carries widget state; write it with vlmlab book"
    counts = [cell.raw["execution_count"] for cell in cells if cell.code and cell.text.strip()]
    if counts != list(range(1, len(counts) + 1)):
        yield "the cells were not executed from top to bottom; run vlmlab book"
    for place, cell in enumerate(cells, 1):
        for output in cell.outputs:
            if any("widget-view" in kind for kind in output.get("data", {})):
                yield f"cell {place} stores the view of a widget; write it with vlmlab book"
            if output["output_type"] == "error":
                yield f"cell {place} ended in an error: {output.get('ename')}"
            if output.get("name") == "stderr":
                yield f"cell {place} prints to standard error: {''.join(output['text'])[:80]!r}"
