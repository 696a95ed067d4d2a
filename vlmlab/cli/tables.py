"""`vlmlab table`: results summed up, and held against published ones."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from vlmlab.cli.options import Json, path_in
from vlmlab.cli.output import show, work
from vlmlab.errors import VlmlabError


def table(
    store: Annotated[
        Path | None,
        typer.Argument(
            parser=path_in,
            metavar="[STORE]",
            help="Folder of the results of a sweep, or a table made of one; with --against and --agreement it may be left "
            "out: the measured table of survey section 6 that vlmlab carries.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(parser=path_in, metavar="PATH", help="CSV file to write; without it, the table is printed."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="published", help="Put published figures beside the measured ones, of one protocol."),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="With --against: few-shot all classes, base-to-new or domain shift."),
    ] = None,
    agreement: Annotated[
        bool,
        typer.Option("--agreement", help="Rank correlation of measured and published orders, a line per protocol."),
    ] = False,
    defaults: Annotated[
        bool,
        typer.Option(
            "--defaults", help="Leave out results with other settings than the defaults, as verify keeps them."
        ),
    ] = False,
    json_: Json = False,
) -> None:
    """Sum up the results of a sweep.

    One line per system, dataset, backbone, shots and split: means and standard deviations over the seeds, what is
    learned, seconds and memory. With --against published, they stand beside those of papers, one line per system: backbones
    and datasets differ, so compare the orders and not the values. Protocols are never mixed.
    """
    if against not in (None, "published"):
        raise VlmlabError(f"there is nothing called '{against}' to hold results against; use --against published")
    if against and agreement:
        raise VlmlabError("--against shows figures and --agreement compares their order; give one of them")
    if protocol is not None and not against:
        raise VlmlabError("--protocol goes with --against published")
    with work():
        if against or agreement:
            lines = _beside_published(store, protocol, agreement, defaults)
        else:
            lines = _summed_up(store, defaults)
        if out is not None:
            _write(lines, out, plain=not (against or agreement))
    if json_ or out is None:
        return show(lines, json_)
    print(f"{out}: {len(lines)} lines")


def _summed_up(store: Path | None, defaults: bool) -> list[dict]:
    from vlmlab.studies.store import ResultStore
    from vlmlab.studies.table import table as lines_of

    if store is None:
        raise VlmlabError("name the folder of a sweep's results: vlmlab table STORE")
    if not os.path.isdir(store):
        raise VlmlabError(f"there is no folder {store} with results; make one by `vlmlab sweep --store {store}`")
    lines = lines_of(ResultStore(store).results(defaults))
    if not lines:
        raise VlmlabError(f"there is no result in {store}; make some by `vlmlab sweep --store {store}`")
    return lines


def _beside_published(store: Path | None, protocol: str | None, agreement: bool, defaults: bool) -> list[dict]:
    import pandas as pd

    from vlmlab.studies import agreement as orders
    from vlmlab.studies.table import COLUMNS, read_table

    if store is not None and not store.suffix == ".csv":
        measured = pd.DataFrame(_summed_up(store, defaults), columns=list(COLUMNS)).replace("", float("nan"))
    else:
        measured = read_table(store)
    found = orders.agreement(measured) if agreement else orders.side_by_side(measured, protocol)
    if found.empty:
        raise VlmlabError(f"no protocol has {orders.FEWEST} systems that were published and measured; measure more")
    return [{name: _plain(value) for name, value in line.items()} for line in found.to_dict("records")]


def _plain(value: Any) -> Any:
    """JSON has no nan."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _write(lines: list[dict], out: Path, plain: bool) -> None:
    from vlmlab.studies.table import write_table

    if plain:
        write_table(lines, out)
        return
    import pandas as pd

    from vlmlab.files import write_atomically

    write_atomically(out, pd.DataFrame(lines).to_csv(index=False, lineterminator="\n"))
