"""Published figures beside those just measured; neither is ever shown alone.

The published ones are rows of `data/reported/`, with their source. What a chapter measures differs from them in
backbone, dataset or shots, and the table says in what, so that nobody takes a small model's figure for a reproduction.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pandas as pd

from vlmlab.errors import VlmlabError
from vlmlab.studies.published import published
from vlmlab.studies.table import spread

__all__ = ["Beside", "Compared", "beside", "published"]

COMPARED = ("backbone", "dataset", "shots")
"""Settings of a published figure that a measurement here may share."""


@dataclasses.dataclass(frozen=True)
class Compared:
    """One line: a published figure, what was measured here (one figure per seed, in percent) and with what settings."""

    what: str
    published: pd.Series
    measured: tuple[float, ...]
    settings: dict[str, str | int]

    @property
    def differs(self) -> list[str]:
        """Settings that are not those of the published figure, as "backbone: ViT-B/16, here micro-vit"."""
        pairs = ((name, str(self.published[name]), str(self.settings.get(name, "?"))) for name in COMPARED)
        return [f"{name}: {theirs}, here {ours}" for name, theirs, ours in pairs if theirs != ours]

    @property
    def status(self) -> str:
        """ "not run", "scaled down" (other settings), else "matched" or "not matched" (two deviations and half a point)."""
        if not self.measured:
            return "not run"
        if self.differs:
            return "scaled down"
        mean, deviation = spread(self.measured)
        return "matched" if abs(mean - float(self.published["value"])) <= 2 * deviation + 0.5 else "not matched"


class Beside:
    """A table of such lines."""

    def __init__(self, lines: Sequence[Compared]) -> None:
        self.lines = list(lines)

    def _cells(self) -> list[list[str]]:
        rows = []
        for line in self.lines:
            row = line.published
            mean, deviation = spread(line.measured) if line.measured else (0.0, 0.0)
            here = f"{mean:.1f} ± {deviation:.1f}" if len(line.measured) > 1 else f"{mean:.1f}"
            rows.append(
                [
                    line.what,
                    f"{row['value']:.2f}",
                    here if line.measured else "",
                    line.status,
                    "; ".join(line.differs) if line.measured else "",
                    f"{row['source']}, {row['source_table']}",
                ]
            )
        return rows

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        head = ["figure (%)", "published", "measured here", "status", "what differs", "published in"]
        lines = [head, ["---"] * len(head), *self._cells()]
        text = "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)
        return {"text/markdown": text, "text/plain": repr(self)}

    def __repr__(self) -> str:
        return "\n".join(" | ".join(cells) for cells in self._cells())


def beside(lines: Sequence[tuple[str, pd.DataFrame, Sequence[float], dict[str, str | int]]]) -> Beside:
    """A table of (what, its published figure, those measured here, their settings); no measured figure is "not run".

    Raises `VlmlabError` if a published figure is not exactly one row.
    """
    made = []
    for what, rows, measured, settings in lines:
        if len(rows) != 1:
            raise VlmlabError(f"'{what}' has {len(rows)} published figures; name more columns, so that one is left")
        made.append(Compared(what, rows.iloc[0], tuple(measured), settings))
    return Beside(made)
