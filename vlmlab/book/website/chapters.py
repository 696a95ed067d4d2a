"""Chapters as the website shows them: alternative texts where Sphinx looks for them, how to run the page, terms with links."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from collections.abc import Iterable
from html import escape
from pathlib import Path

from vlmlab.errors import VlmlabError
from vlmlab.views.style import STATES

NEEDS: dict[str, tuple[str, ...]] = {
    "00": (),
    "06_0": ("00",),
    "06_1": ("06_0",),
    "06_1a": ("06_1",),
    "06_1b": ("06_1",),
    "06_1c": ("06_1",),
    "06_1d": ("06_1",),
    "06_2": ("06_0",),
    "06_3": ("06_1", "06_2"),
    "06_4": ("06_0",),
    "06_5": ("06_0",),
    "06_6": ("06_1", "06_4"),
    "07_0": ("00",),
    "07_1": ("07_0",),
    "07_1a": ("07_1",),
    "07_1b": ("07_1", "06_1"),
    "07_1c": ("07_1",),
    "07_2": ("07_0",),
    "07_2a": ("07_2",),
    "07_2b": ("07_2",),
    "07_2c": ("07_2",),
    "07_3": ("07_2",),
    "07_4": ("07_1", "07_2"),
    "08_1": ("00",),
    "08_2": ("06_6",),
    "08_3": ("07_1",),
    "09_1": ("08_1",),
    "09_2": ("06_6",),
    "09_3": ("07_1",),
}
"""Which chapters one should have read before a chapter, by the numbers of their files."""

PROTECTED = re.compile(
    r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|!?\[[^\]]*\]\([^)]*\)|<[^>]*>|^#.*?$|^\|.*?$|^- .*?arxiv\.org.*?$|https?://\S+",
    re.S | re.M,
)
"""What holds no linked term: code, mathematics, links, HTML, headings, tables, references."""


@dataclasses.dataclass(frozen=True)
class Chapter:
    """A chapter's file, number ("06_1a"), title and minutes of reading and doing."""

    path: Path
    number: str
    title: str
    minutes: int

    @property
    def needs(self) -> tuple[str, ...]:
        """Numbers of the chapters that come before it; `VlmlabError` if `NEEDS` does not know the chapter."""
        if self.number not in NEEDS:
            raise VlmlabError(
                f"the map of the book does not say what chapter {self.number} needs; add it to NEEDS in {__name__}"
            )
        return NEEDS[self.number]


def chapters(folder: Path) -> list[Chapter]:
    """The chapters of a folder, in the order of their names."""
    found = []
    for path in sorted(folder.glob("[0-9]*.ipynb")):
        first = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
        number = re.match(r"\d+(_\d+[a-z]?)?", path.stem)
        minutes = re.search(r"(\d+) minutes", first)
        assert number is not None
        found.append(
            Chapter(
                path, number.group(), first.partition("\n")[0].lstrip("# "), int(minutes.group(1)) if minutes else 0
            )
        )
    return found


def page(notebook: dict, name: str, terms: Iterable[str] = ()) -> dict:
    """A chapter's notebook as the website shows it: `notebook` itself is left as it is.

    Args:
        name: of its file, for the sentence that says how to run it.
        terms: entries of the glossary; the first use of each becomes a link.
    """
    shown = copy.deepcopy(notebook)
    _one_title(shown["cells"])
    _say_how_to_run(shown["cells"], name)
    _link_terms(shown["cells"], list(terms))
    for cell in shown["cells"]:
        for output in cell.get("outputs", []):
            _keep_text(cell, output)
            _slider(output)
    return shown


def _text(cell: dict) -> str:
    return "".join(cell["source"])


def _one_title(cells: list[dict]) -> None:
    """A page has one title: further headings of the first level, which part a chapter, go down one level in this copy."""
    for cell in cells[1:]:
        if cell["cell_type"] == "markdown":
            cell["source"] = re.sub(r"^# (?=\S)", "## ", _text(cell), flags=re.M)


def _say_how_to_run(cells: list[dict], name: str) -> None:
    note = (
        "\n\n```{admonition} Run this chapter\n:class: tip\n"
        f"`vlmlab lab` opens the book; there choose `{name}`. Panels that stand still here move there.\n```\n"
    )
    cells[0]["source"] = _text(cells[0]) + note


def _link_terms(cells: list[dict], terms: list[str]) -> None:
    """The first use of each term outside of headings, code, tables and links; longer terms go before those inside of them."""
    waiting = sorted(terms, key=len, reverse=True)
    for cell in cells:
        if cell["cell_type"] != "markdown":
            continue
        text = _text(cell)
        for term in list(waiting):
            held = [match.span() for match in PROTECTED.finditer(text)] + [
                m.span() for m in re.finditer(r"\{term\}`[^`]*`", text)
            ]
            for use in re.finditer(rf"(?<![\w-]){re.escape(term)}s?(?![\w-])", text, re.I):
                if not any(start < use.end() and use.start() < end for start, end in held):
                    text = f"{text[: use.start()]}{{term}}`{use.group()} <{term}>`{text[use.end() :]}"
                    waiting.remove(term)
                    break
        cell["source"] = text


def _keep_text(cell: dict, output: dict) -> None:
    """The alternative text of a figure, where myst-nb looks for it."""
    for kind, about in output.get("metadata", {}).items():
        if kind.startswith("image/") and "alt" in about:
            cell["metadata"].setdefault("mystnb", {})["image"] = {"alt": about["alt"]}


def _slider(output: dict) -> None:
    """A panel whose states came with it gets a slider that needs no kernel; without scripts its present state is shown."""
    data = output.get("data", {})
    if STATES in data:
        held = data[STATES]
        _, present, alt = held["states"][held["at"]]
        states, name = escape(json.dumps(held["states"])), escape(held["name"])
        board = f'<figure class="vl-board" data-states="{states}" data-name="{name}" data-at="{held["at"]}">'
        output["data"] = {"text/html": f'{board}<img src="{present}" alt="{escape(alt)}"></figure>', "text/plain": alt}
