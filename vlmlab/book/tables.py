"""Tables of a chapter: rows of cells in, Markdown out, so that a cell says what is in a table and not how it is drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vlmlab.errors import VlmlabError


class Table:
    """Rows of text under a head, and a note in Markdown below."""

    def __init__(self, head: list[str], rows: list[list[str]], note: str) -> None:
        self.head, self.rows, self.note = head, rows, note

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        lines = [self.head, ["---"] * len(self.head), *self.rows]
        text = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        return {"text/markdown": f"{text}\n\n{self.note}".rstrip(), "text/plain": repr(self)}

    def __repr__(self) -> str:
        lines = [" | ".join(cells) for cells in (self.head, *self.rows)]
        return "\n".join([*lines, *([self.note] if self.note else [])])


def table(head: Sequence[object], rows: Iterable[Sequence[object]], note: str = "") -> Table:
    """A table to show as the last line of a cell, or with `display`.

    Args:
        head: one name per column.
        rows: cells of each row; True and False become yes and no, None an empty cell. Cells may be Markdown.
        note: sentences below the table, Markdown.

    Raises:
        VlmlabError: a row that has more or fewer cells than the head.
    """
    lines = [[_cell(cell) for cell in row] for row in rows]
    for n, line in enumerate(lines, 1):
        if len(line) != len(head):
            raise VlmlabError(f"row {n} of the table has {len(line)} cells, its head has {len(head)}; give as many")
    return Table([_cell(cell) for cell in head], lines, note)


def _cell(value: object) -> str:
    words = {"True": "yes", "False": "no", "None": ""}
    return words.get(str(value), str(value)) if value is None or isinstance(value, bool) else str(value)
