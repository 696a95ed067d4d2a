"""Figures board: every published figure, filtered; figures that were measured in unlike ways are not drawn together."""

from __future__ import annotations

import html
from typing import Any

import ipywidgets as widgets
import pandas as pd
from matplotlib.figure import Figure

from vlmlab.errors import unknown
from vlmlab.studies.published import all_published
from vlmlab.views.published import MOST_ROWS, refusal, system_dots
from vlmlab.widgets.panel import LABEL, WIDE, Panel, image_view, nothing_yet

FILTERS = ("protocol", "dataset", "backbone", "shots", "split", "metric")
"""Columns in which figures of one chart must agree."""
PAGE = 12
"""Rows of the table below the chart."""
ALWAYS = ("system", "value", "source", "source_table")
"""Columns of that table; of the filters it has those in which the figures differ, the others stand above the chart."""


def what_differs(rows: pd.DataFrame) -> str:
    """In what the figures of a chart differ, in words; empty if they agree in all of `FILTERS`."""
    parts = []
    for column in FILTERS:
        values = list(rows[column].value_counts().index)
        if len(values) > 1:
            more = ", ..." if len(values) > 4 else ""
            parts.append(f"{column} ({len(values)}: {', '.join(map(str, values[:4]))}{more})")
    return "; ".join(parts)


class FiguresBoard(Panel):
    """Choose protocol, dataset, backbone and so on; every point is a figure of one source, and pointing at it names the source."""

    title = "Published figures"

    def __init__(self, rows: pd.DataFrame | None = None, same: bool = False, **wanted: str) -> None:
        """`rows` as `all_published` gives them; `wanted`: a filter's name and value; `same`: draw unlike rows all the same.

        Raises `VlmlabError` for a filter or a value that there is not.
        """
        self.rows = all_published() if rows is None else rows
        for name, value in wanted.items():
            if name not in FILTERS:
                raise unknown("filter of published figures", name, FILTERS)
            if value not in set(self.rows[name]):
                raise unknown(name, value, sorted(set(self.rows[name])))
        self.filters = {name: self._menu(name, wanted.get(name, "")) for name in FILTERS}
        self.same = widgets.Checkbox(same, description="draw them all the same", indent=False)
        self.page = widgets.BoundedIntText(1, min=1, max=9999, description="page", style=LABEL, layout=WIDE)
        for name, menu in self.filters.items():
            menu.add_class(f"vlmlab-{name}")
        self.same.add_class("vlmlab-same")
        self.chart = image_view("published figures as points")
        self.table = widgets.HTML()
        self.controls = [*self.filters.values(), self.same, self.page]
        self.views = [self.chart, self.table]
        self.found = pd.DataFrame()
        self.differs = ""
        super().__init__()
        for control in (*self.filters.values(), self.same):
            control.observe(self.guarded(lambda change: self.look()), "value")
        self.page.observe(self.guarded(lambda change: self._tabulate()), "value")
        self.look()

    def _menu(self, name: str, value: str) -> widgets.Dropdown:
        counts = self.rows[name].value_counts()
        options = [("any", ""), *((f"{v} ({n})", v) for v, n in counts.items())]
        return widgets.Dropdown(options=options, value=value, description=name, style=LABEL, layout=WIDE)

    def look(self) -> None:
        """Ask for the figures that the filters say."""
        wanted = {name: menu.value for name, menu in self.filters.items() if menu.value}
        self.ask(lambda cancelled: self._see(wanted), self._show)

    def _see(self, wanted: dict[str, str]) -> pd.DataFrame:
        rows = self.rows
        for name, value in wanted.items():
            rows = rows[rows[name] == value]
        return rows.sort_values("value", ascending=False)

    def _show(self, rows: pd.DataFrame) -> None:
        self.found, self.differs = rows, what_differs(rows)
        self.page.max = max(1, -(-len(rows) // PAGE))
        self.page.value = 1
        self._tabulate()
        self.paint(self.chart, self.static)

    def _tabulate(self) -> None:
        begin = PAGE * (self.page.value - 1)
        lines = self.found.iloc[begin : begin + PAGE]
        system, value, *source = ALWAYS
        shown = [system, value, *(name for name in FILTERS if self.found[name].nunique() > 1), *source]
        head = "".join(f"<th>{html.escape(name.replace('_', ' '))}</th>" for name in shown)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(str(value))}</td>" for value in line) + "</tr>"
            for line in lines[shown].itertuples(index=False)
        )
        told = f"{len(self.found)} figures, page {self.page.value} of {self.page.max}"
        self.table.value = f"<p><small>{told}</small></p><table><tr>{head}</tr>{body}</table>"

    @property
    def refused(self) -> bool:
        """Whether the figures are too unlike to be drawn."""
        return bool(self.differs) and not self.same.value

    def static(self) -> Figure:
        if self.found.empty and not self.table.value:
            raise nothing_yet()
        if self.found.empty:
            return refusal("No published figure fits all of these filters. Set one of them to any.", "Nothing to draw.")
        if self.refused:
            advice = "Choose one value of each, or tick 'draw them all the same' to see what a mixed table does."
            return refusal(f"These {len(self.found)} figures differ in {self.differs}. {advice}", "Not drawn.")
        found, systems = self.found, self.found["system"].nunique()
        named = ", ".join(str(found[name].iloc[0]) for name in FILTERS if found[name].nunique() == 1)
        best = found.iloc[0]
        still = system_dots(found, "protocol" if self.differs else "source", named, "percent")
        first = f" The first {MOST_ROWS} are drawn." if systems > MOST_ROWS else ""
        mixed = f" They differ in {self.differs}." if self.differs else ""
        return still.described(
            f"{len(found)} published figures of {systems} systems; highest {best['system']}, {best['value']:g}.{first}{mixed}"
        )

    def facts(self) -> dict[str, Any]:
        if self.found.empty and not self.table.value:
            raise nothing_yet()
        return {"figures": len(self.found), "systems": self.found["system"].nunique(), "refused": self.refused}
