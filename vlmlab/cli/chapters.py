"""Commands for what is read: reports and the chapters of the book."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from vlmlab.cli.options import Json, names_in, numbers_in, path_in
from vlmlab.cli.output import print_json, say, show, work
from vlmlab.errors import VlmlabError
from vlmlab.files import installed


def report(
    systems: Annotated[
        list[str] | None,
        typer.Option(metavar="LIST", help="Keys of vlmlab systems, or all: every one of section 6 that classifies."),
    ] = None,
    datasets: Annotated[
        list[str] | None, typer.Option(metavar="LIST", help="Names of vlmlab datasets, or folders.")
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="The backbone that is adapted.")] = None,
    shots: Annotated[list[str] | None, typer.Option(metavar="LIST", help="Training images per class, numbers.")] = None,
    seeds: Annotated[list[str] | None, typer.Option(metavar="LIST", help="Numbers.")] = None,
    words: Annotated[list[str] | None, typer.Option(metavar="LIST", help="Words to look for in photographs.")] = None,
    folder: Annotated[str | None, typer.Option(help="A folder of your own photographs.")] = None,
    others: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any other parameter of the notebook; may be repeated."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=path_in, metavar="PATH", help="Folder that the report is written to; default: reports/TEMPLATE."
        ),
    ] = None,
    template: Annotated[str, typer.Option(help="adaptation, detection or segmentation.")] = "adaptation",
    json_: Json = False,
) -> None:
    """Write a report: adapt a VLM and look at it.

    With --template detection or segmentation, of systems of section 7. The report is a notebook and a web page. What is
    not given here has the default of the notebook's parameters. Lists are separated by commas. A report that was stopped
    goes on where it was.
    """
    given: dict[str, Any] = {
        "systems": systems and names_in(systems),
        "datasets": datasets and names_in(datasets),
        "backbone": backbone,
        "shots": shots and numbers_in("shots", shots),
        "seeds": seeds and numbers_in("seeds", seeds),
        "words": words and names_in(words),
        "folder": folder,
    }
    with work():
        from vlmlab.studies.experiment import read_settings
        from vlmlab.studies.report import report as write
        from vlmlab.studies.templates import from_text, parameters_of, template_named

        defaults = parameters_of(template_named(template))
        if "dataset" in defaults and given["datasets"]:  # a report on one dataset
            if len(given["datasets"]) > 1:
                raise VlmlabError(f"the report {template} is on one dataset, not {len(given['datasets'])}; give one")
            (given["dataset"],) = given.pop("datasets")
        given |= {name: from_text(name, text, defaults) for name, text in read_settings(others or ())}
        files = write(
            {name: value for name, value in given.items() if value is not None},
            out or Path("reports", template),
            template,
            echo=say,
        )
    if json_:
        return print_json({name: str(path) for name, path in files.items()})
    for name, path in files.items():
        print(f"{name:<10}{path}")


def book(
    chapters: Annotated[
        list[str] | None, typer.Argument(metavar="CHAPTER", help="Names or their beginnings, such as 06_4.")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Chapters at a time; with more than one, each has one thread.")
    ] = 1,
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the chapters; those that it lacks are copied there. Default: notebooks/ of a checkout, "
            "./vlmlab-book where vlmlab was installed."
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Execute chapters of the book and write them back.

    Outputs are stored without widget state and with small images. Exit code 1 if a cell failed (that chapter stays as
    it was) or a chapter breaks the recipe.
    """
    with work():
        from vlmlab.book.execute import book as run_chapters
        from vlmlab.book.lab import chapters_folder

        own = folder is not None or installed()
        found = run_chapters(chapters or (), say, workers, chapters_folder(folder) if own else None)
        done = sorted(found, key=lambda one: one.chapter)
    for one in done:
        for line in (one.failure, *one.faults, *one.close):
            if line:
                say(f"{one.chapter}: {line}")
    names = ["chapter", "cells", "seconds", "cpu_seconds", "peak_mb", "kb", "ok"]
    show([dataclasses.asdict(one) | {"ok": one.ok} for one in done], json_, names)
    if not all(one.ok for one in done):
        raise typer.Exit(1)


def lab(
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the chapters; those that it lacks are copied there. Default: notebooks/ of a checkout, "
            "./vlmlab-book where vlmlab was installed."
        ),
    ] = None,
    copy_only: Annotated[bool, typer.Option("--copy-only", help="Copy the chapters and open nothing.")] = False,
) -> None:
    """Open the book in JupyterLab.

    Chapters that one has changed are left as they are.
    """
    from vlmlab.book.lab import chapters_folder
    from vlmlab.book.lab import lab as open_lab

    place = chapters_folder(folder)
    if copy_only:
        return print(place)
    raise typer.Exit(open_lab(place))


def grade(
    submissions: Annotated[
        list[Path], typer.Argument(parser=path_in, metavar="PATH", help="Notebooks, or folders that hold some.")
    ],
    workers: Annotated[int, typer.Option(min=1, help="Submissions at a time.")] = 1,
    out: Annotated[
        Path | None, typer.Option(parser=path_in, metavar="PATH", help="CSV file to write the marks to.")
    ] = None,
    json_: Json = False,
) -> None:
    """Run chapters that were handed in, and mark them.

    Every notebook is run again and left as it is; what counts is what `check` says of its exercises. It is somebody else's
    code: run it where it can do no harm. Exit code 1 if one could not be marked.
    """
    with work():
        import pandas as pd

        from vlmlab.book.grade import grade as mark
        from vlmlab.files import must_be_writable, write_atomically

        if out:
            must_be_writable(out.parent)
        found = mark(submissions, on_start=say, workers=workers)
        rows = [one.row() for one in sorted(found, key=lambda one: one.path)]
        if out:
            write_atomically(out, pd.DataFrame(rows).to_csv(index=False))
    show(rows, json_)
    if any(row["failure"] for row in rows):
        raise typer.Exit(1)
