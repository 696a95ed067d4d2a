"""The signature phenomenon of every system, measured.

A system exists because of something that can be seen to happen: CoOp gains on the classes that it learned and loses on
new ones, Tip-Adapter gains without training. Each such claim stands in a file of this folder that is named like the
system, with a sentence `claim` and a function `measure() -> Verdict` that tests it on an embedded backbone within
seconds. Where a claim was not borne out when it was last measured, a sentence `cause` says what we think is the reason;
it is told only when the claim fails again. `vlmlab verify` runs them all. A system that is registered outside of the package
has its claim and its `measure` (a static method) in its class.

A claim *holds*, is *not reproduced*, or the measurement is *inconclusive*: it could not have shown the phenomenon, and says
why. `judged` has the rules for that, which are the same for all systems.
"""

from __future__ import annotations

import ast
import csv
import dataclasses
import importlib
import io
import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from vlmlab import __version__
from vlmlab.errors import VlmlabError
from vlmlab.files import write_atomically
from vlmlab.registry import own_systems, registry, unknown_system
from vlmlab.studies.store import ResultStore

store_of_checks: ContextVar[ResultStore | None] = ContextVar("store_of_checks", default=None)
"""Where the experiments of the checks that are under way are kept, if anywhere."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of a claim: the numbers `measured` (accuracies in percent), whether they bear it out, and, if not, the
    likely `cause`, or why they cannot tell (`inconclusive`, a sentence; the claim then does not hold)."""

    system: str
    claim: str
    measured: dict[str, Any]
    holds: bool
    cause: str = ""
    inconclusive: str = ""

    @property
    def outcome(self) -> str:
        """ "holds", "inconclusive" or "not reproduced"."""
        return "holds" if self.holds else "inconclusive" if self.inconclusive else "not reproduced"

    def row(self) -> dict:
        """As `vlmlab verify --json` prints it."""
        return dataclasses.asdict(self) | {"outcome": self.outcome}


VERDICTS = "verdicts.csv"
"""The file of data/measured with the latest verdict on each claim."""

LEAST_CEILING = 20.0
"""Percent. A student cannot show what it took over from a teacher that names fewer true regions of new classes right, nor
find objects of which fewer are proposed."""


def judged(
    system: str,
    claim: str,
    measured: dict[str, float | int | str | list],
    differences: Sequence[float] | Mapping[str, Sequence[float]],
    ceilings: Mapping[str, float] | None = None,
    besides: bool = True,
) -> Verdict:
    """The verdict on a claim that something is better than something else, by the differences of at least two seeds.

    It holds if the mean of the differences is larger than their standard deviation (of the sample), and is not reproduced if
    it is as far below zero. In between the seeds disagree, and the measurement is inconclusive. It is, too, if one of the
    `ceilings` (in percent, by what they are of) is below `LEAST_CEILING`, unless the claim holds all the same. Of several
    differences by name each must hold; one that is as far below zero is enough for not reproduced. So is `besides`, what
    else the claim says and does not depend on the seed, if it is not true.

    Raises `ValueError` for fewer than two differences: one has no deviation.
    """
    named = differences if isinstance(differences, Mapping) else {"": differences}
    each_holds, close, below = [], [], False
    for name, values in named.items():
        if len(values) < 2:
            raise ValueError(f"{system}: a verdict needs the differences of at least two seeds")
        mean, deviation = statistics.mean(values), statistics.stdev(values)
        each_holds.append(mean > deviation)
        below |= mean < -deviation
        key = f"difference_{name}" if name else "difference"
        measured = measured | {key: round(mean, 2), f"{key}_sd": round(deviation, 2)}
        if abs(mean) <= deviation:
            what = f"the difference of {name.replace('_', ' ')}," if name else "the difference of"
            close.append(
                f"{what} {mean:.2f} points lies within the deviation of {deviation:.2f} over {len(values)} seeds"
            )
    holds = besides and all(each_holds)
    low = [f"{name} is {value:.1f} %" for name, value in (ceilings or {}).items() if value < LEAST_CEILING]
    why = ""
    if low:
        why = f"{', '.join(low)}, less than the {LEAST_CEILING:.0f} % from which a student has something to show"
    elif besides and not below:
        why = "; ".join(close)
    return Verdict(system, claim, measured, holds, inconclusive="" if holds else why)


def record(verdicts: Sequence[Verdict], path: Path) -> None:
    """Write verdicts to a CSV file, a line per system; lines of other systems that it has already stay.

    Columns: system, outcome, claim, measured (JSON), why (the likely cause, or why the measurement cannot tell), version.
    Raises `VlmlabError` if the file is there and holds something else.
    """
    columns = ["system", "outcome", "claim", "measured", "why", "version"]
    rows: dict[str, dict[str, str]] = {}
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if reader.fieldnames != columns:
                raise VlmlabError(f"{path} is no table of verdicts; name another file")
            rows = {row["system"]: row for row in reader}
    for one in verdicts:
        measured = json.dumps(one.measured, ensure_ascii=False)
        found = (one.system, one.outcome, one.claim, measured, one.inconclusive or one.cause, __version__)
        rows[one.system] = dict(zip(columns, found, strict=True))
    order = list(registry())
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        sorted(rows.values(), key=lambda row: order.index(row["system"]) if row["system"] in order else len(order))
    )
    write_atomically(path, text.getvalue())


def claims() -> dict[str, str]:
    """The claim of every system that has a check, in the survey's order; read from the files, which are not imported.

    Raises `VlmlabError` if a file is named like no system or has no sentence `claim`.
    """
    written = {}
    for path in Path(__file__).parent.glob("*.py"):
        if path.stem.startswith("_"):
            continue
        assignments = {
            node.targets[0].id: node.value
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        if path.stem not in registry() or "claim" not in assignments:
            raise VlmlabError(f"{path.name} is not a check; it must be named like a system and say its `claim`")
        written[path.stem] = ast.literal_eval(assignments["claim"])
    written |= {key: cls.claim for key, cls in own_systems().items() if hasattr(cls, "claim")}
    return {key: written[key] for key in registry() if key in written}


def verify(
    systems: Sequence[str] = (),
    on_start: Callable[[str, str], None] | None = None,
    store: ResultStore | None = None,
) -> Iterator[Verdict]:
    """Test the claims of these systems (of all that have a check, if none is named), one after the other.

    `on_start(system, claim)` is told what is about to be measured. Experiments of the checks that `store` has a result of
    are not run again, and the others are kept there; not every check consists of experiments.
    Raises `VlmlabError` for an unknown system or one without a check, before anything is measured.
    """
    known = claims()
    for key in systems:
        if key not in registry():
            raise unknown_system(key)
        if key not in known:
            raise VlmlabError(f"system '{key}' has no check yet; there are checks of {', '.join(known)}")
    return _verdicts(list(systems) or list(known), known, on_start, store)


def _verdicts(keys: list[str], known: dict[str, str], on_start, store: ResultStore | None) -> Iterator[Verdict]:
    for key in keys:
        if on_start:
            on_start(key, known[key])
        check = own_systems().get(key) or importlib.import_module(f"{__name__}.{key}")
        before = store_of_checks.set(store)
        try:
            verdict = check.measure()
        finally:
            store_of_checks.reset(before)
        yield (
            verdict
            if verdict.outcome != "not reproduced"
            else dataclasses.replace(verdict, cause=getattr(check, "cause", ""))
        )
