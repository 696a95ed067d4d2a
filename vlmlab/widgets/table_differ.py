"""Table differ: a table of the survey as printed, each cell in the colour of what is known of it, and its ranking put right."""

from __future__ import annotations

import html
from typing import Any

import ipywidgets as widgets
import pandas as pd
from matplotlib.figure import Figure

from vlmlab.errors import unknown
from vlmlab.studies.differ import TABLES, cells, put_right, ranking
from vlmlab.views.published import status_table, two_ranks
from vlmlab.widgets.panel import LABEL, WIDE, Panel, image_view, nothing_yet

VIEWS = ("cells", "ranking")


class TableDiffer(Panel):
    """Choose a table, look at its cells or at the ranking of a column before and after; questions are never put right."""

    title = "The survey's tables, and what is known of them"

    def __init__(self, table: str = "Table 10", view: str = "cells", column: str = "", split: bool = False) -> None:
        """`column` empty: the first of the table; `split`: rows of another protocol leave the ranking.

        Raises `VlmlabError` for a table, view or column that there is not.
        """
        for what, value, known in (("table of the survey", table, TABLES), ("view", view, VIEWS)):
            if value not in known:
                raise unknown(what, value, known)
        self.known = {table: cells(table)}
        columns = list(dict.fromkeys(self.known[table]["column"]))
        if column and column not in columns:
            raise unknown(f"column of {table}", column, columns)
        options = {"style": LABEL, "layout": WIDE}
        self.which = widgets.Dropdown(options=TABLES, value=table, description="table", **options)
        self.view = widgets.ToggleButtons(options=VIEWS, value=view)
        self.column = widgets.Dropdown(options=columns, value=column or columns[0], description="column", **options)
        self.right = widgets.Checkbox(True, description="put right what a source says", indent=False)
        self.split = widgets.Checkbox(split, description="split by protocol", indent=False)
        for name in ("which", "view", "column", "right", "split"):
            getattr(self, name).add_class(f"vlmlab-{name}")
        self.chart = image_view("a table of the survey with the status of its cells")
        self.note = widgets.HTML()
        self.controls = [self.which, self.view, self.column, self.right, self.split]
        self.views = [self.chart, self.note]
        self.found = pd.DataFrame()
        super().__init__()
        self.which.observe(self.guarded(lambda change: self._columns()), "value")
        for control in (self.which, self.view, self.column, self.right, self.split):
            control.observe(self.guarded(lambda change: self.look()), "value")
        self.look()

    def _columns(self) -> None:
        """The columns of the table that was chosen."""
        table = self.which.value
        self.known.setdefault(table, cells(table))
        self.column.options = list(dict.fromkeys(self.known[table]["column"]))

    def look(self) -> None:
        """Ask for the table that the controls say."""
        table = self.which.value
        self.ask(lambda cancelled: self.known.setdefault(table, cells(table)), self._show)

    def _show(self, found: pd.DataFrame) -> None:
        self.found = found
        self.paint(self.chart, self.static)
        told = found[found["status"].isin(["differs", "question", "protocol"])]
        lines = [
            f"<tr><td>{html.escape(str(c.row))}</td><td>{html.escape(c.column)}</td><td>{c.value:g}</td>"
            f"<td>{'' if pd.isna(c.original) else format(c.original, 'g')}</td><td>{html.escape(c.kind)}</td>"
            f"<td>{html.escape(c.sure)}</td><td>{html.escape(c.source_of)}</td></tr>"
            for c in told[told["column"] == self.column.value].itertuples()
        ]
        head = "".join(
            f"<th>{name}</th>" for name in ("row", "column", "printed", "source", "kind", "how sure", "where")
        )
        self.note.value = f"<table><tr>{head}</tr>{''.join(lines)}</table>" if lines else ""

    def rankings(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The chosen column as printed, and with what the ticked boxes change."""
        if self.found.empty:
            raise nothing_yet()
        after = put_right(self.found) if self.right.value else self.found
        if self.split.value:
            after = after[after["status"] != "protocol"]
        return ranking(self.found, self.column.value), ranking(after, self.column.value)

    def static(self) -> Figure:
        if self.found.empty:
            raise nothing_yet()
        counts = self.found["status"].value_counts().to_dict()
        said = ", ".join(f"{count} {status}" for status, count in counts.items())
        if self.view.value == "cells":
            return status_table(self.found, f"{self.which.value} as printed").described(
                f"{self.which.value} of the survey as printed, {len(self.found)} cells: {said}"
            )
        before, after = self.rankings()
        chart = two_ranks(before, after, ("as printed", "put right"), f"{self.which.value}, {self.column.value} (%)")
        moved = self.facts()["moved"]
        first = after["row"].iloc[0] if len(after) else "none"
        return chart.described(
            f"ranking of {len(before)} rows by {self.column.value}: {moved} change their place, "
            f"first was {before['row'].iloc[0]} and is {first}"
        )

    def facts(self) -> dict[str, Any]:
        """Cells by status, and how many rows of the column change their place."""
        before, after = self.rankings()
        places = dict(zip(after["row"], range(len(after)), strict=True))
        kept = [row for row in before["row"] if row in places]
        moved = sum(places[row] != k for k, row in enumerate(kept))
        return {
            **{str(status): count for status, count in self.found["status"].value_counts().sort_index().items()},
            "moved": moved,
            "left out": len(before) - len(kept),
        }
