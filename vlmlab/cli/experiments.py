"""Commands that measure: one experiment, many of them, and the table of their results."""

from __future__ import annotations

import contextlib
import itertools
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from vlmlab.cli.options import (
    Device,
    Download,
    Json,
    Noise,
    Root,
    Settings,
    SkipBroken,
    Targets,
    TestPictures,
    Views,
    check_setting_names,
    check_settings,
    names_in,
    numbers_in,
    path_in,
    targets_in,
)
from vlmlab.cli.output import print_json, say, show, work
from vlmlab.errors import VlmlabError, unknown
from vlmlab.learning.metrics import main_metric
from vlmlab.studies.splits import SPLITS


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
        typer.Option(help="; ".join(f"{one.key}: {one.text}" for one in SPLITS.values()) + "."),
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
    If images, lists or files have changed since the same question was last asked, a line says which.
    """
    from vlmlab.backbones.catalog import check_backbone
    from vlmlab.datasets.catalog import check_dataset
    from vlmlab.registry import registry, unknown_system
    from vlmlab.studies.experiment import Experiment, read_settings

    if system not in registry():
        raise unknown_system(system)
    tested = targets_in(targets, dataset)
    for name in (dataset, *tested):
        check_dataset(name)
    check_backbone(backbone)
    chosen = read_settings(settings or ())
    check_setting_names([system], chosen)
    if shots is None:
        shots = 16 if registry()[system].takes_shots else 0
    experiment = Experiment(
        system,
        dataset,
        backbone,
        shots,
        seed,
        split,
        chosen,
        views,
        root and str(root),
        skip_broken,
        tested,
        noise,
        test_pictures,
    )
    with work():
        from vlmlab.datasets.catalog import warn_of_namesake
        from vlmlab.studies.run import run_experiment

        if experiment.dataset != dataset:  # otherwise loading says it
            warn_of_namesake(dataset)
        with _remembered(experiment) as remember, _stop_on_interrupt() as should_stop:
            result = run_experiment(experiment, device, download, should_stop=should_stop)
            if not result["stopped"]:
                remember(result)
    if json_:
        return print_json(result)
    print(f"{experiment}\n")
    for name, value in result["metrics"].items():
        beside = result["zero_shot"].get(name)
        print(f"  {name:<16}{value:6.1f} %" + (f"   zero-shot {beside:6.1f} %" if beside is not None else ""))
    if "zero_shot_templates" in result:
        print(f"\n  zero-shot with the words that {system} begins with: {result['zero_shot_templates']}")
    cost = f"{result['trainable_parameters']:,} numbers learned, {result['seconds']:.1f} s, {result['peak_mb']:.0f} MB"
    print(f"\n  {cost}{'; stopped early' if result['stopped'] else ''}")


def sweep(
    store: Annotated[
        Path,
        typer.Option(
            parser=path_in,
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
    validation: Annotated[
        bool, typer.Option("--validation", help="Measure on validation images; keep them in a store of their own.")
    ] = False,
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
    from vlmlab.studies.store import ResultStore
    from vlmlab.studies.templates import check_names

    if section and systems:
        raise VlmlabError("--section names its systems itself; give either --section or --systems")
    keys = names_in(systems or ["zero_shot", "coop", "tip_adapter"])
    if section:
        from vlmlab.studies.sweep import suited, systems_of

        keys = systems_of(section)
    named = names_in(datasets) if datasets else None if section else ["digits"]
    towers, splits = names_in(backbones or ["micro-vit"]), names_in(split or ["all"])
    for key in keys:
        if key not in registry():
            raise unknown_system(key)
    tested = targets_in(targets, *(named or ()))
    for tower in towers:
        check_names({"datasets": [*(named or ()), *tested], "backbone": tower})
    others: dict[str, Any] = {
        "views": views,
        "root": root and str(root),
        "skip_broken": skip_broken,
        "noise": noise,
        "test_pictures": test_pictures,
        "validation": validation,
    }
    if tested:
        others["targets"] = tested
    given = read_settings(settings or ())
    for name, _ in given:
        if "." in name and name.partition(".")[0] not in keys:
            raise unknown("system of the sweep", name.partition(".")[0], keys)
    check_setting_names(keys, given)
    few, draws = numbers_in("shots", shots or ["1,4,16"]), numbers_in("seeds", seeds or ["0,1,2"])
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
        with work():
            check_settings(keys, given)
    with work():
        from vlmlab.studies.sweep import sweep as run_all  # a missing package is told before the plan

        results = ResultStore(store)
        if not results.folder.is_dir():
            results.prepare()  # a folder that cannot be made is told before the plan
        for line in _plan(experiments, results):
            say(line)
        outcomes = run_all(experiments, results, workers, scheduler, _reporter(len(experiments)), download)
    if json_:
        print_json([_outcome_row(outcome) for outcome in outcomes])
    else:
        show([_outcome_cells(outcome) for outcome in outcomes], False)
    if any(outcome.failure for outcome in outcomes):
        raise typer.Exit(1)


@contextlib.contextmanager
def _remembered(experiment: Any) -> Iterator[Callable[[dict], None]]:
    """Says what has changed since the experiment was last run here; what is handed over is its result for the next time.

    Only results made from files are kept, in the user's cache: without them, the next run has nothing to say.
    """
    from vlmlab.files import cache_path
    from vlmlab.studies.store import ResultStore

    store = ResultStore(cache_path("measured"))
    made_from = store.look(experiment)
    with contextlib.suppress(VlmlabError):
        if changed := store.changes(experiment):
            say(f"vlmlab: since this was measured last, {changed}")

    def remember(result: dict) -> None:
        if made_from:
            with contextlib.suppress(VlmlabError):
                store.add(experiment, result, made_from)

    yield remember


def tune(
    system: Annotated[str, typer.Argument(metavar="SYSTEM", help="A key of vlmlab systems, such as coop.")],
    store: Annotated[
        Path, typer.Option(parser=path_in, metavar="PATH", help="Folder of the measurements; what it holds is known.")
    ],
    datasets: Annotated[
        list[str] | None, typer.Option(metavar="LIST", help="Names or folders with validation images; default: digits.")
    ] = None,
    backbone: Annotated[str, typer.Option(help="A name of vlmlab backbones.")] = "micro-vit",
    shots: Annotated[int, typer.Option(help="Training images per class.", min=0)] = 4,
    split: Annotated[str, typer.Option(help="all, base, new or hierarchy (see vlmlab run).")] = "all",
    trials: Annotated[int, typer.Option(help="Settings to try; the first is the present one.")] = 8,
    seeds: Annotated[list[str] | None, typer.Option(metavar="LIST", help="Numbers; default: 11,12,13.")] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(metavar="LIST", help="Settings to search; default: learning rate and the system's own weights."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(parser=path_in, metavar="PATH", help="JSON file that the whole search is written to.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; default: one per core.", min=0)] = None,
    json_: Json = False,
) -> None:
    """Search a system's settings on validation images.

    Every system has the same budget and the same rule. A setting is only better if its mean gain over the present one is
    larger than its standard error over datasets and seeds. Test images are not looked at.
    """
    from vlmlab.registry import registry, unknown_system
    from vlmlab.studies.report import check_names
    from vlmlab.studies.store import ResultStore

    if system not in registry():
        raise unknown_system(system)
    named, draws = names_in(datasets or ["digits"]), numbers_in("seeds", seeds or ["11,12,13"])
    names = names_in(search) if search else []
    few = shots if registry()[system].takes_shots else 0
    check_names({"datasets": named, "backbone": backbone})
    with work():
        from vlmlab.files import write_atomically
        from vlmlab.studies.tune import as_log
        from vlmlab.studies.tune import tune as search_settings

        tell = _reporter(trials * len(named) * len(draws))
        found, chosen = search_settings(
            system, named, ResultStore(store), backbone, few, split, trials, draws, names, workers, tell
        )
        if out is not None:
            how = {"backbone": backbone, "shots": few, "split": split, "datasets": named, "seeds": draws}
            write_atomically(out, as_log(system, found, chosen, **how))
    rows = [trial.row() | {"chosen": trial.number == chosen} for trial in found]
    show(rows, json_)


@contextlib.contextmanager
def _stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C asks training to end, the second one ends the program."""
    asked: list[bool] = []

    def ask(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(True)
        say("ending the training (Ctrl-C again to give up)")

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)


def _plan(experiments: list[Any], store: Any) -> Iterator[str]:
    """What a sweep is going to do, in two lines, before it begins."""
    different = list({experiment.key: experiment for experiment in experiments}.values())
    known = sum(store.get(experiment) is not None for experiment in different)
    counts = (
        f"{len(values)} {name}{'s' * (len(values) > 1)}"
        for name, field in (
            ("system", "system"),
            ("dataset", "dataset"),
            ("backbone", "backbone"),
            ("number of shots" if len({one.shots for one in different}) == 1 else "numbers of shot", "shots"),
            ("seed", "seed"),
            ("split", "split"),
        )
        if (values := {getattr(experiment, field) for experiment in different})
    )
    count = len(different)
    yield f"plan: {count} experiment{'s' * (count != 1)} ({', '.join(counts)}); {known} known, {count - known} to run"
    yield f"results go to {store.folder}; stopped by Ctrl-C or killed, the same command goes on from there"


def _reporter(total: int) -> Callable[[Any], None]:
    """Says one line per outcome of a sweep."""
    done = []

    def tell(outcome: Any) -> None:
        done.append(outcome)
        what = "known" if outcome.known else f"failed: {outcome.failure}" if outcome.failure else "done"
        say(f"[{len(done)}/{total}] {outcome.experiment}: {what}")

    return tell


def _outcome_row(outcome: Any) -> dict:
    """A result as `run --json` prints it, or the experiment with the reason of its failure."""
    return outcome.result or outcome.experiment.as_json() | {"failure": outcome.failure}


def _outcome_cells(outcome: Any) -> dict:
    experiment = outcome.experiment
    cells = {name: getattr(experiment, name) for name in ("system", "dataset", "backbone", "shots", "seed")}
    if outcome.failure:
        return cells | {"failure": outcome.failure}
    main = main_metric(outcome.result["metrics"])
    return cells | {
        "metric": main,
        "percent": outcome.result["metrics"][main],
        "zero_shot": outcome.result["zero_shot"].get(main),
        "seconds": outcome.result["seconds"],
    }
