"""Commands that check claims, speed and this installation, and that make embedded backbones again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlmlab.cli.options import Json, path_in
from vlmlab.cli.output import print_json, say, short, show, work
from vlmlab.errors import unknown

MEASUREMENTS = (
    "shared_prefix_step",
    "matmul_share",
    "cached_epoch",
    "coop_fit",
    "cocoop_step",
    "cached_regions",
    "cached_tokens",
    "freed_memory",
    "images",
    "world",
    "report_memory",
)
"""Names that `vlmlab bench` measures by default; those of vlmlab.studies.bench, which is slow to import."""


def verify(
    systems: Annotated[
        list[str] | None, typer.Argument(metavar="SYSTEM", help="Keys of vlmlab systems; default: all of them.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(parser=path_in, metavar="PATH", help="CSV file of verdicts; lines of other systems in it stay."),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(
            parser=path_in, metavar="PATH", help="Folder of results: experiments that it holds are not run again."
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Measure what each system exists for.

    A claim holds, is not reproduced, or its measurement is inconclusive. Exit code 1 if one is not reproduced.
    """
    from vlmlab.studies.store import ResultStore
    from vlmlab.studies.verify import record
    from vlmlab.studies.verify import verify as check

    verdicts = []
    results = None if store is None else ResultStore(store)
    if results is not None:
        results.prepare()
    found = check(systems or (), on_start=lambda key, claim: say(f"{key}: {claim}"), store=results)
    if out is not None:
        record([], out)  # whether it can be written is found out before hours of measuring
    for verdict in found:
        verdicts.append(verdict)
        if out is not None:
            record([verdict], out)
        if not json_:
            shown = verdict.outcome if verdict.holds else verdict.outcome.upper()
            print(f"{shown}  {verdict.system}: {verdict.claim}")
            print("".join(f"       {name} = {short(value)}\n" for name, value in verdict.measured.items()), end="")
            if verdict.cause:
                print(f"       likely cause: {verdict.cause}")
            if verdict.inconclusive:
                print(f"       it cannot tell: {verdict.inconclusive}")
    if json_:
        print_json([verdict.row() for verdict in verdicts])
    if any(verdict.outcome == "not reproduced" for verdict in verdicts):
        raise typer.Exit(1)


def check(
    system: Annotated[str, typer.Argument(metavar="SYSTEM", help="A key of vlmlab systems.")],
    json_: Json = False,
) -> None:
    """Hold one system to its contract and its claim.

    The contract is tried on a toy task, the claim is measured as by verify. Exit code 1 if something does not hold; what is
    inconclusive is neither.
    """
    from vlmlab.registry import registry, unknown_system
    from vlmlab.studies.verify import claims, verify

    if system not in registry():
        raise unknown_system(system)
    rows = []
    with work():
        from vlmlab.testing import checks

        for one in checks(system):
            say(f"{system}: {one}")
            try:
                one(system)
            except AssertionError as error:
                rows.append({"check": str(one), "holds": False, "found": str(error).partition("\n")[0]})
            else:
                rows.append({"check": str(one), "holds": True, "found": ""})
        if system in claims():
            for verdict in verify([system], on_start=lambda key, claim: say(f"{key}: {claim}")):
                found = f"{verdict.outcome}: {verdict.inconclusive or short(verdict.measured)}"
                told = None if verdict.inconclusive else verdict.holds  # nobody knows
                rows.append({"check": verdict.claim, "holds": told, "found": found})
    show(rows, json_, ["holds", "check", "found"])
    if any(row["holds"] is False for row in rows):
        raise typer.Exit(1)


def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help=f"{', '.join(MEASUREMENTS)} (default: all of these); fits: a 16-shot fit of every system; fit.KEY: of "
            "one, such as fit.coop.",
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="cuda: measure a GPU instead, how it is fed and what it reaches.")
    ] = "cpu",
    json_: Json = False,
) -> None:
    """Measure what the speed-ups are worth.

    The speed-ups are exact; both sides of each ratio are measured in one run, on this machine.
    """
    from vlmlab.registry import registry

    fits = [f"fit.{key}" for key in registry()]
    for name in names or ():
        if name not in (*MEASUREMENTS, "fits", *fits):
            raise unknown("measurement", name, fits if name.startswith("fit.") else [*MEASUREMENTS, "fits"])
    with work():
        from vlmlab.studies.bench import bench as measure

        measured = measure(names or (), on_start=say, device=device)
    if json_:
        return print_json(measured)
    show([{"name": name} | facts for name, facts in measured.items()], False)


def doctor(
    network: Annotated[bool, typer.Option("--network", help="Also see whether the model hub answers.")] = False,
    json_: Json = False,
) -> None:
    """Look for what is wrong with this installation.

    Versions, device, embedded weights, cache, browser. Exit code 1 if something is wrong.
    """
    with work():
        from vlmlab.studies.doctor import examine

        findings = examine(network)
    if json_:
        print_json(findings)
    else:
        for name, finding in findings.items():
            mark = "ok" if finding["ok"] else "WRONG"
            print(f"{mark:<7}{name:<34}{finding['value']}{'; ' + finding['note'] if finding['note'] else ''}")
    if not all(finding["ok"] for finding in findings.values()):
        raise typer.Exit(1)


def build(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="micro-vit, micro-vit-fine, micro-rn, photo or proposer.")
    ],
    json_: Json = False,
) -> None:
    """Make embedded weights again and write them to data.

    photo takes half a minute, proposer (of the detectors) two; micro-vit two to three hours on one core, and the two that
    learn from it half an hour. A build of theirs that was stopped goes on where it was.
    """
    from vlmlab.backbones.catalog import BACKBONES

    embedded = [*(info.name for info in BACKBONES if info.offline), "proposer"]
    if name not in embedded:
        raise unknown("embedded backbone", name, embedded)
    with work():
        if name == "proposer":
            from vlmlab.pretraining.proposer import build as learn

            made = learn()
        elif name == "photo":
            from vlmlab.backbones.photo import build_photo

            made = build_photo()
        else:
            from vlmlab.pretraining.micro import build as pretrain

            made = pretrain(name)
    if json_:
        return print_json({"name": name, "written": str(made)})
    print(f"{name} was written to {made}")
