"""Pages that are generated: the entrance, the map of the book, the index of systems, cheat sheets, the measured tables."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from vlmlab.book.website.chapters import Chapter
from vlmlab.files import data_path
from vlmlab.registry import SystemInfo, registry
from vlmlab.studies.verify import VERDICTS, claims

FAMILIES = {
    "text_prompt": "Text prompts",
    "visual_prompt": "Visual prompts",
    "text_visual_prompt": "Text and visual prompts",
    "adapter": "Feature adapters",
    "other": "Other ways to transfer",
    "detection": "Detectors",
    "segmentation": "Segmenters",
}
PARTS = {
    "00": "Start",
    "06": "Transfer learning",
    "07": "Knowledge distillation",
    "08": "Performance",
    "09": "Future directions",
}
WIDE, HIGH, GAP, DOWN = 158, 36, 24, 12  # a box of the map, and the space to the next one, in pixels


def pages(book: Sequence[Chapter], reference: bool = True) -> dict[str, str]:
    """Name of a file -> its Markdown, for everything but the chapters, the glossary and the syllabus."""
    written = {
        "index.md": _index(book, reference),
        "book.md": _book(book),
        "map.md": _map(book),
        "systems.md": _systems(book),
        "measured.md": _measured(),
        "sheets.md": _sheets_index(),
    }
    for family, title in FAMILIES.items():
        written[f"sheets/{family}.md"] = _sheet(family, title)
    if reference:
        tree = "```{toctree}\n:maxdepth: 2\n\napi/vlmlab/vlmlab\n```\n"
        written["reference.md"] = (
            "# Reference\n\nFrom the docstrings of the package; `source(...)` in a chapter shows the code itself.\n\n"
            + tree
        )
    return written


def _toctree(entries: Sequence[str], *options: str) -> str:
    return "\n".join(["```{toctree}", *options, "", *entries, "```", ""])


def _index(book: Sequence[Chapter], reference: bool) -> str:
    hours = sum(chapter.minutes for chapter in book) / 60
    return f"""# vlmlab

An executable survey: *Vision-Language Models for Vision Tasks* ([arXiv 2304.00685](https://arxiv.org/abs/2304.00685)), sections 6 to 9, as a
book that runs. {len(book)} chapters, {len(registry())} systems, about {hours:.0f} hours of reading and doing. What you see here are the chapters as
they were executed; `vlmlab lab` opens them live.

- [The map](map.md) says which chapter needs which, and the [syllabus](syllabus.md) plans 4, 8 and 14 weeks.
- [Systems](systems.md): every system with its paper, its chapter, its file, and what became of its claim.
- [Cheat sheets](sheets.md): one page per family. [Measured](measured.md): the tables behind the boards.
- [Glossary](glossary.md): the field's terms; chapters link a term where they use it first.

""" + _toctree(
        ["book", "map", "systems", "sheets", "measured", "glossary", "syllabus", *(["reference"] if reference else [])],
        ":hidden:",
    )


def _book(book: Sequence[Chapter]) -> str:
    lines = ["# The book", ""]
    for part, title in PARTS.items():
        own = [chapter for chapter in book if chapter.number.startswith(part)]
        if own:
            lines += [f"## {title}", ""]
            lines += [
                f"- [{chapter.title}](notebooks/{chapter.path.name}), {chapter.minutes} minutes" for chapter in own
            ] + [""]
    return "\n".join(lines) + _toctree(
        [f"notebooks/{chapter.path.stem}" for chapter in book], ":hidden:", ":titlesonly:"
    )


# ---------------------------------------------------------------------------------------------------------------- map


def _layers(book: Sequence[Chapter]) -> dict[str, int]:
    """Number of a chapter -> the length of the longest way to it."""
    there = {chapter.number for chapter in book}
    found: dict[str, int] = {}
    waiting = list(book)
    while waiting:
        ready = [c for c in waiting if all(n in found for n in c.needs if n in there)]
        for chapter in ready:
            found[chapter.number] = 1 + max((found[n] for n in chapter.needs if n in there), default=-1)
        waiting = [c for c in waiting if c not in ready]
    return found


def drawing(book: Sequence[Chapter]) -> str:
    """The map as an SVG with links: a box per chapter, left of what needs it."""
    layer = _layers(book)
    place: dict[str, tuple[int, int]] = {}
    rows: dict[int, int] = {}
    for chapter in book:
        column = layer[chapter.number]
        rows[column] = rows.get(column, 0) + 1
        place[chapter.number] = (column * (WIDE + GAP), (rows[column] - 1) * (HIGH + DOWN))
    wide, high = (max(layer.values()) + 1) * (WIDE + GAP) - GAP, max(rows.values()) * (HIGH + DOWN)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide + 2}" height="{high}" viewBox="-1 -1 {wide + 2} {high}" role="img">'
    ]
    parts.append("<title>Which chapter needs which; the same as a list stands below</title>")
    for chapter in book:
        x, y = place[chapter.number]
        for need in chapter.needs:
            if need in place:
                a, b = place[need]
                start, end, middle = (a + WIDE, b + HIGH / 2), (x, y + HIGH / 2), (a + WIDE + GAP / 2)
                parts.append(
                    f'<path d="M{start[0]} {start[1]} C{middle} {start[1]} {x - GAP / 2} {end[1]} {end[0]} {end[1]}"/>'
                )
    for chapter in book:
        x, y = place[chapter.number]
        number, _, title = chapter.title.partition(" · ")
        said = textwrap.shorten(title.partition(":")[0], 19, placeholder=" ...")
        parts.append(
            f'<a href="notebooks/{chapter.path.stem}.html"><rect x="{x}" y="{y}" width="{WIDE}" height="{HIGH}" rx="4"/>'
            f'<text x="{x + 8}" y="{y + 23}">{number} {said}</text></a>'
        )
    return "".join([*parts, "</svg>"])


def _map(book: Sequence[Chapter]) -> str:
    by_number = {chapter.number: chapter for chapter in book}
    lines = ["# The map", "", "Read a chapter when you have read what lies left of it and is joined to it.", ""]
    lines += ["```{raw} html", f'<div class="book-map">{drawing(book)}</div>', "```", ""]
    lines += ["| chapter | minutes | read before |", "|---|---|---|"]
    for chapter in book:
        before = ", ".join(
            f"[{by_number[n].title.partition(' · ')[0]}](notebooks/{by_number[n].path.name})"
            for n in chapter.needs
            if n in by_number
        )
        lines.append(
            f"| [{chapter.title}](notebooks/{chapter.path.name}) | {chapter.minutes} | {before or 'nothing'} |"
        )
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------------------------------------------------------ systems


def chapter_of(key: str, book: Sequence[Chapter]) -> Chapter | None:
    """The chapter that shows a system's code, or the first that names its key in code or prose."""
    texts = {chapter: chapter.path.read_text(encoding="utf-8") for chapter in book}
    for sign in (rf'source\(\\"{key}\\"', rf'\\"{key}\\"|`{key}`'):
        for chapter, text in texts.items():
            if chapter.number != "06_6" and re.search(sign, text):
                return chapter
    return None


def _systems(book: Sequence[Chapter]) -> str:
    known, told = claims(), {}
    file = data_path("measured", VERDICTS)
    if file.is_file():
        table = pd.read_csv(file)
        told = dict(zip(table.system.astype(str), table.outcome.astype(str), strict=True))
    lines = [
        "# Systems",
        "",
        "Every system of the registry, in the survey's order. *Claim* is what the system exists for, and what became of it when it was",
        "last measured here (`vlmlab verify`). Files are below `vlmlab/methods`.",
        "",
        "| system | survey | chapter | claim | outcome |",
        "|---|---|---|---|---|",
    ]
    for key, info in registry().items():
        chapter = chapter_of(key, book)
        where = f"[{chapter.title.partition(' · ')[0]}](notebooks/{chapter.path.name})" if chapter else ""
        file_name = f"{info.family}/{info.module.rpartition('.')[2]}.py"
        outcome = told.get(key, "no verdict on file") if key in known else ""
        extra = ", extra" if info.status == "extra" else ""
        lines.append(
            f"| **{info.name}** {_paper(info)}{extra} `{file_name}` | {info.section} | {where} "
            f"| {_cell(known.get(key, ''))} | {outcome} |"
        )
    return "\n".join(lines) + "\n"


def _paper(info: SystemInfo) -> str:
    number = info.paper.removeprefix("arXiv:")
    return f"[{number}](https://arxiv.org/abs/{number}), {info.year}" if number != info.paper else str(info.year)


def _cell(text: str) -> str:
    """Text as a cell of a table takes it."""
    return text.replace("|", "\\|").replace("\n", " ")


# ------------------------------------------------------------------------------------------------------------- sheets


def _sheets_index() -> str:
    lines = [
        "# Cheat sheets",
        "",
        "A page per family: the idea of each system, its equations, what it learns, and how to run it.",
        "",
    ]
    lines += [f"- [{title}](sheets/{family}.md)" for family, title in FAMILIES.items()] + [""]
    return "\n".join(lines) + _toctree([f"sheets/{family}" for family in FAMILIES], ":hidden:")


def idea(info: SystemInfo) -> tuple[str, str]:
    """(the words before the first block of equations in the docstring of a system's file, that block)."""
    path = Path(__file__).resolve().parents[3] / (info.module.replace(".", "/") + ".py")
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    before, _, rest = text.partition("\n    ")
    block = re.match(r"(?:(?: {4}.*)?\n)*(?: {4}.*)?", "    " + rest) if rest else None
    return before.strip(), textwrap.dedent(block.group()).strip() if block else ""


def _sheet(family: str, title: str) -> str:
    known = claims()
    lines = [f"# {title}", ""]
    for key, info in registry().items():
        if info.family != family:
            continue
        words, equations = idea(info)
        paragraphs = [p for p in words.split("\n\n") if "arXiv" not in p or len(p.split("\n")) > 1]
        lines += [f"## {info.name}", "", " ".join("\n\n".join(paragraphs or [words]).split()), ""]
        if equations:
            lines += ["```text", equations, "```", ""]
        lines += [f"- Learns {info.learns}. Setup: {info.setup}. {_paper(info)}."]
        if key in known:
            lines += [f"- Claim: {known[key]}."]
        data = "tableau" if family in ("detection", "segmentation") else "digits"
        lines += [f"- `vlmlab run {key} --dataset {data}`", ""]
    return "\n".join(lines)


# ----------------------------------------------------------------------------------------------------------- measured


def _measured() -> str:
    lines = ["# Measured", "", "The tables that the boards draw, as they come with vlmlab.", ""]
    for path in sorted(data_path("measured").glob("*.csv")):
        table = pd.read_csv(path)
        lines += [
            f"- `data/measured/{path.name}`: {len(table)} lines, columns {', '.join(f'`{name}`' for name in table.columns)}"
        ]
    about = (data_path("measured") / "README.md").read_text(encoding="utf-8")
    return "\n".join(lines) + "\n\n" + re.sub(r"^#", "##", about, flags=re.M)
