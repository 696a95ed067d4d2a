"""The command line. `vlmlab --help` says what there is; with `--json` a command prints one JSON value.

Nothing heavy is imported before a command needs it: listings answer at once. Results go to standard output, whatever
else is said (progress, warnings, what libraries print) to standard error. Exit codes: 0 done; 1 done, but a claim does
not hold or an experiment failed; 2 a mistake that the user can mend, told in one line.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import errno
import itertools
import json
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from vlmlab import __version__
from vlmlab.errors import VlmlabError, unknown
from vlmlab.files import expanded, installed, is_one_path

# typer hands on click's errors (from click, or from a copy of its own, depending on its version).
UsageError = typer.BadParameter.__base__

app = typer.Typer(
    name="vlmlab",
    help="Vision-language models for vision tasks: an executable survey (arXiv 2304.00685). "
    "Every system of the survey, one backbone interface, on a laptop or a GPU.",
    epilog="Start with: vlmlab systems, then vlmlab run coop --dataset digits, then vlmlab report.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

TROUBLE = (
    errno.EACCES, errno.EPERM, errno.EIO, errno.EISDIR, errno.ELOOP, errno.EMFILE, errno.EINVAL, errno.ENAMETOOLONG, errno.ENOENT,
    errno.ENOTDIR, errno.ENXIO,
)  # fmt: skip
"""What a path or a file system may be at fault with, wherever it is met."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EPIPE)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value and nothing else on standard output.")]


def _path(given: str | Path) -> Path:
    """A path as it was typed, ~ replaced; an empty one, which would mean the current folder, is refused."""
    if not str(given).strip():
        raise typer.BadParameter("an empty path was given; name a file or a folder, the current one is .")
    return expanded(given)


Root = Annotated[
    Path | None, typer.Option(parser=_path, metavar="PATH", help="Folder that holds the standard datasets.")
]
Download = Annotated[bool, typer.Option("--download", help="Download a standard dataset that is missing.")]
SkipBroken = Annotated[bool, typer.Option("--skip-broken", help="Leave out images that cannot be read.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting of the system, such as lr=0.01; may be repeated."),
]
Views = Annotated[int, typer.Option(help="Random crops per training image, as the field trains; 0 for none.")]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LIST",
        help="Other datasets to test on as well, by their own class names; others: all embedded ones that show other "
        "classes.",
    ),
]
Noise = Annotated[float, typer.Option(help="Share of the training labels that are wrong, 0 to 1.")]
TestPictures = Annotated[
    int, typer.Option(help="Measure on about so many test images, equally many of every class; 0: on all.", min=0)
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]


EXTRAS = {
    **dict.fromkeys(
        (
            "IPython",
            "anywidget",
            "ipywidgets",
            "jupyterlab",
            "nbclient",
            "nbconvert",
            "nbformat",
            "papermill",
            "traitlets",
        ),
        "book",
    ),
    "distributed": "sweep",
}
"""Packages that are only there with an extra of the installation, and its name."""

STOPPED = 130
"""Exit code of a command that the user ended."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that the terminal cannot spell must not lose the answer
            stream.reconfigure(errors="backslashreplace")
    try:
        code = typer.main.get_command(app).main(args=arguments, prog_name="vlmlab", standalone_mode=False)
        if sys.stdout:  # none if it was closed
            sys.stdout.flush()
        if code == STOPPED:  # typer's own answer to Ctrl-C
            return _refused("stopped", code=STOPPED)
    except VlmlabError as error:
        return _refused(str(error))
    except UsageError as error:
        return _refused(f"{error.format_message()} (see vlmlab {_command_of(error)}--help)")
    except (typer.Abort, KeyboardInterrupt):
        return _refused("stopped", code=STOPPED)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        return _refused(f"this needs the package {error.name}; install it with: pip install 'vlmlab[{extra}]'")
    except OSError as error:
        if error.errno in TROUBLE and error.filename is not None:
            return _refused(
                f"cannot use {os.fsdecode(error.filename)} ({error.strerror}); name another one, or see to its rights"
            )
        if error.errno not in NO_ROOM:
            raise
        # Python would try to write what is left of the answer once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if error.errno == errno.EPIPE:  # whoever read the answer has read enough
            return 1
        where = error.filename or "the answer"
        return _refused(f"cannot write {where}: {error.strerror}; choose a place with room that you may write to")
    return code if isinstance(code, int) else 0


def _refused(message: str, code: int = 2) -> int:
    print("vlmlab: " + " ".join(message.split()), file=sys.stderr)
    return code


def _command_of(error: Exception) -> str:
    path = error.ctx.command_path.split()[1:] if getattr(error, "ctx", None) else []
    return "".join(part + " " for part in path)


@app.callback(invoke_without_command=True)
def _top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        print(f"vlmlab {__version__}")
        raise typer.Exit()
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


# --- what there is ----------------------------------------------------------------------------------------------------


@app.command()
def systems(json_: Json = False) -> None:
    """List the systems of the survey that run here."""
    from vlmlab.registry import registry

    rows = [info.row() for info in registry().values()]
    _show(rows, json_, ["key", "section", "year", "setup", "learns", "title"])


@app.command()
def backbones(json_: Json = False) -> None:
    """List the backbones.

    Those that are offline need no download. Any ARCH/TAG of open_clip and any ARCH@FILE (a checkpoint) work as well.
    """
    from vlmlab.backbones.catalog import BACKBONES

    names = ["name", "image_tower", "text_tower", "embed_dim", "image_size", "megabytes", "offline"]
    _show([{name: getattr(info, name) for name in names} for info in BACKBONES], json_)


@app.command()
def datasets(json_: Json = False) -> None:
    """List the datasets.

    Those that are offline need no download. A folder of images is named by its path.
    """
    from vlmlab.datasets.catalog import DATASETS

    names = ["name", "classes", "splits", "tasks", "mirrors", "offline"]
    _show([{name: getattr(info, name) for name in names} for info in DATASETS], json_)


# --- one experiment ---------------------------------------------------------------------------------------------------


@app.command()
def run(
    system: Annotated[str, typer.Argument(metavar="SYSTEM", help="A key of vlmlab systems, such as coop.")],
    dataset: Annotated[str, typer.Option(help="A name of vlmlab datasets, or the path of a folder of images.")],
    backbone: Annotated[str, typer.Option(help="A name of vlmlab backbones, ARCH/TAG or ARCH@FILE.")] = "micro-vit",
    shots: Annotated[
        int | None, typer.Option(help="Training images per class; default: 16, or 0 for a system that needs none.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the choice of images and of training.")] = 0,
    split: Annotated[
        str,
        typer.Option(
            help="all classes; base: learn and test on half of them; new: test on the other half; shift: all, and also "
            "in other styles; hierarchy: all, and also at every level of the class tree."
        ),
    ] = "all",
    targets: Targets = None,
    noise: Noise = 0.0,
    test_pictures: TestPictures = 0,
    settings: Settings = None,
    views: Views = 0,
    root: Root = None,
    download: Download = False,
    skip_broken: SkipBroken = False,
    device: Device = "auto",
    json_: Json = False,
) -> None:
    """Adapt a system to a dataset and measure it.

    The figures of zero-shot prediction stand beside its own. Ctrl-C ends training early and measures what was learned.
    """
    from vlmlab.registry import registry, unknown_system
    from vlmlab.studies.experiment import Experiment, read_settings

    if system not in registry():
        raise unknown_system(system)
    if shots is None:
        shots = 16 if registry()[system].takes_shots else 0
    experiment = Experiment(
        system,
        dataset,
        backbone,
        shots,
        seed,
        split,
        read_settings(settings or ()),
        views,
        root and str(root),
        skip_broken,
        _targets(targets, dataset),
        noise,
        test_pictures,
    )
    with _work():
        from vlmlab.datasets.catalog import warn_of_namesake
        from vlmlab.studies.run import run_experiment

        if experiment.dataset != dataset:  # otherwise loading says it
            warn_of_namesake(dataset)
        with _stop_on_interrupt() as should_stop:
            result = run_experiment(experiment, device, download, should_stop=should_stop)
    if json_:
        return _print_json(result)
    print(f"{experiment}\n")
    for name, value in result["metrics"].items():
        beside = result["zero_shot"].get(name)
        print(f"  {name:<16}{value:6.1f} %" + (f"   zero-shot {beside:6.1f} %" if beside is not None else ""))
    cost = f"{result['trainable_parameters']:,} numbers learned, {result['seconds']:.1f} s, {result['peak_mb']:.0f} MB"
    print(f"\n  {cost}{'; stopped early' if result['stopped'] else ''}")


# --- many experiments -------------------------------------------------------------------------------------------------


@app.command()
def sweep(
    store: Annotated[
        Path,
        typer.Option(
            parser=_path,
            metavar="PATH",
            help="Folder of the results; what it holds is not computed again while the images are the same.",
        ),
    ],
    systems: Annotated[
        list[str] | None,
        typer.Option(metavar="LIST", help="Keys of vlmlab systems; default: zero_shot,coop,tip_adapter."),
    ] = None,
    section: Annotated[
        str | None,
        typer.Option(help="All systems of a section of the survey, such as 6 or 6.3.1, each where it makes sense."),
    ] = None,
    datasets: Annotated[
        list[str] | None, typer.Option(metavar="LIST", help="Names or folders; default: digits, or all with --section.")
    ] = None,
    backbones: Annotated[
        list[str] | None, typer.Option(metavar="LIST", help="Names of vlmlab backbones; default: micro-vit.")
    ] = None,
    shots: Annotated[
        list[str] | None, typer.Option(metavar="LIST", help="Training images per class, numbers; default: 1,4,16.")
    ] = None,
    seeds: Annotated[list[str] | None, typer.Option(metavar="LIST", help="Numbers; default: 0,1,2.")] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(metavar="LIST", help="Among all, base, new, shift and hierarchy (see vlmlab run); default: all."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="[SYSTEM.]KEY=VALUE", help="A setting, of one system or of all; may be repeated."
        ),
    ] = None,
    targets: Targets = None,
    noise: Noise = 0.0,
    test_pictures: TestPictures = 0,
    views: Views = 0,
    root: Root = None,
    download: Download = False,
    skip_broken: SkipBroken = False,
    workers: Annotated[int | None, typer.Option(help="Processes; default: one per core.", min=0)] = None,
    scheduler: Annotated[str | None, typer.Option(help="Address of a dask scheduler, instead of this machine.")] = None,
    json_: Json = False,
) -> None:
    """Run every combination and keep the results.

    Lists are separated by commas, or given by an option that is repeated: --shots 1,4 is --shots 1 --shots 4.

    Killed or stopped, it goes on where it was when it is run again. Systems that take no shots run once per dataset and
    seed. With --section, the splits base and shift take the most shots.
    Exit code 1 if an experiment failed; the others are kept, and it is tried again by the next run.
    """
    from vlmlab.registry import registry, unknown_system
    from vlmlab.studies.experiment import grid, read_settings, settings_for
    from vlmlab.studies.report import check_names
    from vlmlab.studies.store import ResultStore

    if section and systems:
        raise VlmlabError("--section names its systems itself; give either --section or --systems")
    keys = _names(systems or ["zero_shot", "coop", "tip_adapter"])
    if section:
        from vlmlab.studies.sweep import suited, systems_of

        keys = systems_of(section)
    named = _names(datasets) if datasets else None if section else ["digits"]
    towers, splits = _names(backbones or ["micro-vit"]), _names(split or ["all"])
    for key in keys:
        if key not in registry():
            raise unknown_system(key)
    tested = _targets(targets, *(named or ()))
    for tower in towers:
        check_names({"datasets": [*(named or ()), *tested], "backbone": tower})
    others = {
        "views": views,
        "root": root and str(root),
        "skip_broken": skip_broken,
        "noise": noise,
        "test_pictures": test_pictures,
    }
    if tested:
        others["targets"] = tested
    given = read_settings(settings or ())
    for name, _ in given:
        if "." in name and name.partition(".")[0] not in keys:
            raise unknown("system of the sweep", name.partition(".")[0], keys)
    few, draws = _numbers("shots", shots or ["1,4,16"]), _numbers("seeds", seeds or ["0,1,2"])
    if section:
        experiments = suited(
            keys, named, towers, few, draws, splits, config=lambda key: settings_for(key, given), **others
        )
    else:
        experiments = []
        for key, one in itertools.product(keys, splits):
            own = {"split": one, "config": settings_for(key, given), **others}
            experiments += grid([key], named, towers, few if registry()[key].takes_shots else [0], draws, **own)
    if given:
        with _work():
            _check_settings(keys, given)
    with _work():
        from vlmlab.studies.sweep import sweep as run_all

        outcomes = run_all(experiments, ResultStore(store), workers, scheduler, _reporter(len(experiments)), download)
    if json_:
        _print_json([_outcome_row(outcome) for outcome in outcomes])
    else:
        _show([_outcome_cells(outcome) for outcome in outcomes], False)
    if any(outcome.failure for outcome in outcomes):
        raise typer.Exit(1)


@app.command()
def table(
    store: Annotated[Path, typer.Argument(parser=_path, metavar="STORE", help="Folder of the results of a sweep.")],
    out: Annotated[
        Path | None,
        typer.Option(parser=_path, metavar="PATH", help="CSV file to write; without it, the table is printed."),
    ] = None,
    json_: Json = False,
) -> None:
    """Sum up the results of a sweep.

    One line per system, dataset, backbone, shots and split: means and standard deviations over the seeds, what is
    learned, seconds and memory.
    """
    with _work():
        from vlmlab.studies.store import ResultStore
        from vlmlab.studies.table import table as lines_of
        from vlmlab.studies.table import write_table

        if not os.path.isdir(store):
            raise VlmlabError(f"there is no folder {store} with results; make one by `vlmlab sweep --store {store}`")
        lines = lines_of(ResultStore(store).results())
        if not lines:
            raise VlmlabError(f"there is no result in {store}; make some by `vlmlab sweep --store {store}`")
        if out is not None:
            write_table(lines, out)
    if json_ or out is None:
        return _show(lines, json_)
    print(f"{out}: {len(lines)} lines")


@app.command()
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
        Path, typer.Option(parser=_path, metavar="PATH", help="Folder that the report is written to.")
    ] = Path("reports/adaptation"),
    template: Annotated[str, typer.Option(help="Name of the notebook in notebooks/reports.")] = "adaptation",
    json_: Json = False,
) -> None:
    """Write a report: adapt a VLM and look at it.

    The report is a notebook and a web page. What is not given here has the default of the notebook's parameters. Lists
    are separated by commas. A report that was stopped goes on where it was.
    """
    given = {
        "systems": systems and _names(systems),
        "datasets": datasets and _names(datasets),
        "backbone": backbone,
        "shots": shots and _numbers("shots", shots),
        "seeds": seeds and _numbers("seeds", seeds),
        "words": words and _names(words),
        "folder": folder,
    }
    with _work():
        from vlmlab.studies.experiment import read_settings
        from vlmlab.studies.report import from_text, parameters_of, template_named
        from vlmlab.studies.report import report as write

        defaults = parameters_of(template_named(template))
        given |= {name: from_text(name, text, defaults) for name, text in read_settings(others or ())}
        files = write({name: value for name, value in given.items() if value is not None}, out, template, echo=_say)
    if json_:
        return _print_json({name: str(path) for name, path in files.items()})
    for name, path in files.items():
        print(f"{name:<10}{path}")


@app.command()
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
    with _work():
        from vlmlab.book.execute import book as run_chapters
        from vlmlab.book.lab import chapters_folder

        own = folder is not None or installed()
        found = run_chapters(chapters or (), _say, workers, chapters_folder(folder) if own else None)
        done = sorted(found, key=lambda one: one.chapter)
    for one in done:
        for line in (one.failure, *one.faults, *one.close):
            if line:
                _say(f"{one.chapter}: {line}")
    names = ["chapter", "cells", "seconds", "cpu_seconds", "peak_mb", "kb", "ok"]
    _show([dataclasses.asdict(one) | {"ok": one.ok} for one in done], json_, names)
    if not all(one.ok for one in done):
        raise typer.Exit(1)


@app.command()
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


@app.command()
def grade(
    submissions: Annotated[
        list[Path], typer.Argument(parser=_path, metavar="PATH", help="Notebooks, or folders that hold some.")
    ],
    workers: Annotated[int, typer.Option(min=1, help="Submissions at a time.")] = 1,
    out: Annotated[
        Path | None, typer.Option(parser=_path, metavar="PATH", help="CSV file to write the marks to.")
    ] = None,
    json_: Json = False,
) -> None:
    """Run chapters that were handed in, and mark them.

    Every notebook is run again and left as it is; what counts is what `check` says of its exercises. It is somebody else's
    code: run it where it can do no harm. Exit code 1 if one could not be marked.
    """
    with _work():
        import pandas as pd

        from vlmlab.book.grade import grade as mark
        from vlmlab.files import must_be_writable, write_atomically

        if out:
            must_be_writable(out.parent)
        found = mark(submissions, on_start=_say, workers=workers)
        rows = [one.row() for one in sorted(found, key=lambda one: one.path)]
        if out:
            write_atomically(out, pd.DataFrame(rows).to_csv(index=False))
    _show(rows, json_)
    if any(row["failure"] for row in rows):
        raise typer.Exit(1)


# --- checks -----------------------------------------------------------------------------------------------------------


@app.command()
def verify(
    systems: Annotated[
        list[str] | None, typer.Argument(metavar="SYSTEM", help="Keys of vlmlab systems; default: all of them.")
    ] = None,
    json_: Json = False,
) -> None:
    """Measure what each system exists for.

    Exit code 1 if a claim does not hold.
    """
    from vlmlab.studies.verify import verify as check

    verdicts = []
    for verdict in check(systems or (), on_start=lambda key, claim: _say(f"{key}: {claim}")):
        verdicts.append(verdict)
        if not json_:
            print(f"{'holds' if verdict.holds else 'NOT REPRODUCED'}  {verdict.system}: {verdict.claim}")
            print("".join(f"       {name} = {_short(value)}\n" for name, value in verdict.measured.items()), end="")
            if verdict.cause:
                print(f"       likely cause: {verdict.cause}")
    if json_:
        _print_json([verdict.row() for verdict in verdicts])
    if not all(verdict.holds for verdict in verdicts):
        raise typer.Exit(1)


@app.command()
def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="shared_prefix_step, matmul_share, cached_epoch, coop_fit, cocoop_step, world, report_memory (default: "
            "all of these); fits: a 16-shot fit of every system; fit.KEY: of one, such as fit.coop.",
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Measure what the speed-ups are worth.

    The speed-ups are exact; both sides of each ratio are measured in one run, on this machine.
    """
    with _work():
        from vlmlab.studies.bench import bench as measure

        measured = measure(names or (), on_start=_say)
    if json_:
        return _print_json(measured)
    _show([{"name": name} | facts for name, facts in measured.items()], False)


@app.command()
def doctor(
    network: Annotated[bool, typer.Option("--network", help="Also see whether the model hub answers.")] = False,
    json_: Json = False,
) -> None:
    """Look for what is wrong with this installation.

    Versions, device, embedded weights, cache, browser. Exit code 1 if something is wrong.
    """
    with _work():
        from vlmlab.studies.doctor import examine

        findings = examine(network)
    if json_:
        _print_json(findings)
    else:
        for name, finding in findings.items():
            mark = "ok" if finding["ok"] else "WRONG"
            print(f"{mark:<7}{name:<34}{finding['value']}{'; ' + finding['note'] if finding['note'] else ''}")
    if not all(finding["ok"] for finding in findings.values()):
        raise typer.Exit(1)


@app.command()
def build(
    name: Annotated[str, typer.Argument(metavar="NAME", help="micro-vit, micro-vit-fine, micro-rn or photo.")],
    json_: Json = False,
) -> None:
    """Make an embedded backbone again and write it to data/backbones.

    photo takes half a minute; micro-vit two to three hours on one core, and the two that learn from it half an hour. A
    build of theirs that was stopped goes on where it was.
    """
    from vlmlab.backbones.catalog import BACKBONES

    embedded = [info.name for info in BACKBONES if info.offline]
    if name not in embedded:
        raise unknown("embedded backbone", name, embedded)
    with _work():
        if name == "photo":
            from vlmlab.backbones.photo import build_photo

            made = build_photo()
        else:
            from vlmlab.pretraining.micro import build as pretrain

            made = pretrain(name)
    if json_:
        return _print_json({"name": name, "written": str(made)})
    print(f"{name} was written to {made}")


# --- talking ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _work() -> Iterator[None]:
    """Whatever is printed within goes to standard error: libraries must not mix their lines with the result.

    Our own warnings are lines like any other; those of libraries stay as they are.
    """
    import warnings

    ordinary = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], file: str, line: int, *rest: Any) -> None:
        if Path(__file__).parent in Path(file).parents:
            _say(f"vlmlab: {message}")
        else:
            ordinary(message, category, file, line, *rest)

    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.showwarning = show
        yield


@contextlib.contextmanager
def _stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C asks training to end, the second one ends the program."""
    asked = []

    def ask(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(True)
        _say("ending the training (Ctrl-C again to give up)")

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _print_json(value: Any) -> None:
    print(json.dumps(_plain(value), indent=1, ensure_ascii=False, allow_nan=False))


def _plain(value: Any) -> Any:
    """`value` as JSON knows it: what is not a number becomes null, since JSON has no NaN."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def _show(rows: list[dict], json_: bool, columns: Sequence[str] | None = None) -> None:
    """Rows as JSON, or some of their columns as a table."""
    if json_:
        return _print_json(rows)
    columns = columns or list(dict.fromkeys(name for row in rows for name in row))
    heads = [name.replace("_", " ") for name in columns]
    cells = [heads, *([_short(row.get(name)) for name in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _short(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_short(one)}" for name, one in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_short, value))
    return "" if value is None else str(value)


def _reporter(total: int) -> Callable[[Any], None]:
    """Says one line per outcome of a sweep."""
    done = []

    def tell(outcome: Any) -> None:
        done.append(outcome)
        what = "known" if outcome.known else f"failed: {outcome.failure}" if outcome.failure else "done"
        _say(f"[{len(done)}/{total}] {outcome.experiment}: {what}")

    return tell


def _outcome_row(outcome: Any) -> dict:
    """A result as `run --json` prints it, or the experiment with the reason of its failure."""
    return outcome.result or outcome.experiment.as_json() | {"failure": outcome.failure}


def _outcome_cells(outcome: Any) -> dict:
    experiment = outcome.experiment
    cells = {name: getattr(experiment, name) for name in ("system", "dataset", "backbone", "shots", "seed")}
    if outcome.failure:
        return cells | {"failure": outcome.failure}
    main = next(iter(outcome.result["metrics"]))
    return cells | {
        "metric": main,
        "percent": outcome.result["metrics"][main],
        "zero_shot": next(iter(outcome.result["zero_shot"].values()), None),
        "seconds": outcome.result["seconds"],
    }


# --- reading ----------------------------------------------------------------------------------------------------------


def _names(given: Sequence[str]) -> list[str]:
    """["a, b", "c"] -> ["a", "b", "c"], each once; raises `VlmlabError` if there is no name.

    What exists under its whole text (./Smith, J) is one name, and so is what stands in double quotes.
    """
    texts = ([text] if is_one_path(text) else next(csv.reader([text], skipinitialspace=True), []) for text in given)
    names = list(dict.fromkeys(name.strip() for text in texts for name in text if name.strip()))
    if not names:
        raise VlmlabError("an empty list was given; separate names by commas")
    return names


def _targets(given: Sequence[str] | None, *sources: str) -> tuple[str, ...]:
    """["a, b"] -> ("a", "b"); "others" are the embedded datasets of other classes than those that are learned."""
    if not given:
        return ()
    if _names(given) != ["others"]:
        return tuple(_names(given))
    from vlmlab.datasets.catalog import DATASETS, shifted_versions

    same = {name for source in sources for name in (source, *shifted_versions(source))}
    suited = (d for d in DATASETS if d.offline and d.splits["train"] and d.tasks == ("classification",))
    shifted = {version for d in DATASETS for version in shifted_versions(d.name)}
    return tuple(d.name for d in suited if d.name not in same | shifted)


def _numbers(option: str, given: Sequence[str]) -> list[int]:
    """["1, 2"] -> [1, 2]; raises `VlmlabError` if something else than whole numbers is given."""
    try:
        return [int(name) for name in _names(given)]
    except ValueError as error:
        text = ",".join(given)
        raise VlmlabError(f"--{option} takes whole numbers separated by commas, such as 1,2,4, not '{text}'") from error


def _check_settings(keys: Sequence[str], settings: Sequence[tuple[str, str]]) -> None:
    """Raises `VlmlabError` for a setting that a system has not, or of the wrong type, before the first experiment."""
    from types import SimpleNamespace

    from vlmlab.registry import load_system
    from vlmlab.studies.experiment import settings_for

    for key in keys:
        try:
            load_system(key).configure(SimpleNamespace(embedded=False), **settings_for(key, settings))
        except VlmlabError as error:
            raise VlmlabError(f"{key}: {error} (a setting of one system is written SYSTEM.KEY=VALUE)") from error


if __name__ == "__main__":
    sys.exit(main())
