"""The signature phenomenon of every system, measured.

A system exists because of something that can be seen to happen: CoOp gains on the classes that it learned and loses on
new ones, Tip-Adapter gains without training. Each such claim stands in a file of this folder that is named like the
system, with a sentence `claim` and a function `measure() -> Verdict` that tests it on an embedded backbone within
seconds. Where a claim was not borne out when it was last measured, a sentence `cause` says what we think is the reason;
it is told only when the claim fails again. `vlmlab verify` runs them all.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from vlmlab.errors import VlmlabError
from vlmlab.registry import registry, unknown_system


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of a claim: the numbers `measured` (accuracies in percent), whether they bear it out, and, if not, the
    likely `cause`."""

    system: str
    claim: str
    measured: dict[str, float | int | str | list]
    holds: bool
    cause: str = ""

    def row(self) -> dict:
        """As `vlmlab verify --json` prints it."""
        return dataclasses.asdict(self)


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
    return {key: written[key] for key in registry() if key in written}


def verify(systems: Sequence[str] = (), on_start: Callable[[str, str], None] | None = None) -> Iterator[Verdict]:
    """Test the claims of these systems (of all that have a check, if none is named), one after the other.

    `on_start(system, claim)` is told what is about to be measured.
    Raises `VlmlabError` for an unknown system or one without a check, before anything is measured.
    """
    known = claims()
    for key in systems:
        if key not in registry():
            raise unknown_system(key)
        if key not in known:
            raise VlmlabError(f"system '{key}' has no check yet; there are checks of {', '.join(known)}")
    return _verdicts(list(systems) or list(known), known, on_start)


def _verdicts(keys: list[str], known: dict[str, str], on_start) -> Iterator[Verdict]:
    for key in keys:
        if on_start:
            on_start(key, known[key])
        check = importlib.import_module(f"{__name__}.{key}")
        verdict = check.measure()
        yield verdict if verdict.holds else dataclasses.replace(verdict, cause=getattr(check, "cause", ""))
