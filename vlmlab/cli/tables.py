"""`vlmlab table`: results summed up, and held against published ones."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from vlmlab.cli.options import Json, path_in
from vlmlab.cli.output import print_json, show, work
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
        typer.Option(
            "--agreement",
            help="Rank correlation of measured and published orders, a line per protocol, and what else a benchmark must show: "
            "datasets that discriminate, claims that hold, systems on new classes.",
        ),
    ] = False,
    discriminating: Annotated[
        bool,
        typer.Option(
            "--discriminating",
            help="A line per dataset: zero-shot accuracy and the median gain at 16 shots, and whether that tells systems apart "
            "(25 to 85 %, 3 points or more); also of a store on validation images.",
        ),
    ] = False,
    defaults: Annotated[
        bool,
        typer.Option(
            "--defaults", help="Leave out results with other settings than the defaults, as verify keeps them."
        ),
    ] = False,
    test_pictures: Annotated[
        int | None,
        typer.Option(
            min=0, help="Leave out results measured on another number of test images; 0: those on all.", metavar="N"
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Sum up the results of a sweep.

    One line per system, dataset, backbone, shots and split: means and standard deviations over the seeds, what is
    learned, seconds and memory. With --against published, they stand beside those of papers, one line per system: backbones
    and datasets differ, so compare the orders and not the values. Protocols are never mixed.
    """
    if against not in (None, "published"):
        raise VlmlabError(f"there is nothing called '{against}' to hold results against; use --against published")
    if bool(against) + agreement + discriminating > 1:
        raise VlmlabError(
            "--against shows figures, --agreement compares their order, --discriminating is about datasets; give one of them"
        )
    if test_pictures is not None and (against or agreement or discriminating):
        raise VlmlabError("--test-pictures chooses results of a store to sum up; make a table by it first")
    if protocol is not None and not against:
        raise VlmlabError("--protocol goes with --against published")
    with work():
        besides: dict[str, Any] = {}
        if discriminating:
            lines = _datasets(store, defaults)
        elif against or agreement:
            measured = _measured(store, defaults)
            lines = _beside_published(measured, protocol, agreement)
            besides = _besides(measured) if agreement else {}
        else:
            lines = _summed_up(store, defaults, test_pictures=test_pictures)
        if out is not None:
            _write(lines, out, plain=not (against or agreement or discriminating))
    if out is not None and not json_:
        return print(f"{out}: {len(lines)} lines")
    if json_:
        return print_json({"orders": lines} | besides if agreement else lines)
    show(lines, False)
    for title, found in besides.items():
        print(f"\n{title.replace('_', ' ')}")
        show(found if isinstance(found, list) else [found], False)


def _summed_up(
    store: Path | None, defaults: bool, validation: bool = False, test_pictures: int | None = None
) -> list[dict]:
    """The lines of a store of results; with `validation`, those on validation images count, too; with `test_pictures`, those alone
    that were measured on so many test images."""
    from vlmlab.studies.store import ResultStore
    from vlmlab.studies.table import table as lines_of

    if store is None:
        raise VlmlabError("name the folder of a sweep's results: vlmlab table STORE")
    if not os.path.isdir(store):
        raise VlmlabError(f"there is no folder {store} with results; make one by `vlmlab sweep --store {store}`")
    results = ResultStore(store).results(defaults)
    if test_pictures is not None:
        results = [result for result in results if result.get("test_pictures", 0) == test_pictures]
    lines = lines_of(results, validation and any(result.get("validation") for result in results))
    if not lines:
        raise VlmlabError(f"there is no result in {store}; make some by `vlmlab sweep --store {store}`")
    return lines


def _measured(store: Path | None, defaults: bool, validation: bool = False) -> Any:
    """The table of a store, or one that was made of a store; data/measured/section6.csv if none is named."""
    import pandas as pd

    from vlmlab.studies.table import COLUMNS, TEXTS, read_table

    if store is not None and store.suffix != ".csv":
        found = pd.DataFrame(_summed_up(store, defaults, validation), columns=list(COLUMNS)).replace("", float("nan"))
        return found.astype({name: float for name in COLUMNS if name not in TEXTS} | {"shots": int, "seeds": int})
    return read_table(store)


def _beside_published(measured: Any, protocol: str | None, agreement: bool) -> list[dict]:
    from vlmlab.studies import agreement as orders

    found = orders.agreement(measured) if agreement else orders.side_by_side(measured, protocol)
    if found.empty:
        raise VlmlabError(f"no protocol has {orders.FEWEST} systems that were published and measured; measure more")
    return _lines(found)


def _besides(measured: Any) -> dict[str, Any]:
    """What stands beside the rank correlations, by title."""
    from vlmlab.studies import standing

    here, on_validation = standing.discriminating(measured), standing.chosen()
    counts = [
        {
            "images": images,
            "datasets": len(found),
            "discriminating": int(found.discriminates.sum()),
            "which": _which(found),
        }
        for images, found in (("test images of this table", here), ("validation images, composed sets", on_validation))
        if len(found)
    ]
    return {
        "discriminating_datasets": counts,
        "claims_of_vlmlab_verify": standing.verdicts(),
        "new_classes": _lines(standing.on_new_classes(measured)),
    }


def _which(found: Any) -> str:
    return ", ".join(found.dataset[found.discriminates])


def _datasets(store: Path | None, defaults: bool) -> list[dict]:
    """A line per dataset: whether it tells systems apart."""
    from vlmlab.studies import standing

    found = standing.discriminating(_measured(store, defaults, validation=True))
    if found.empty:
        raise VlmlabError(
            f"nothing was measured with {standing.SHOTS} shots on all classes; make a sweep of some systems"
        )
    return _lines(found)


def _lines(found: Any) -> list[dict]:
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
