"""What the checks of detectors share: a fit on tableau, and its average precision by group."""

from __future__ import annotations

from collections.abc import Sequence

from vlmlab.studies.table import spread
from vlmlab.studies.verify import Verdict, judged
from vlmlab.studies.verify._measure import SEEDS, results

TESTED = 235  # test images, five of each class


def detected(system: str, seeds: Sequence[int] = SEEDS, dataset: str = "tableau", **config) -> list[dict[str, float]]:
    """AP50 and ceilings in percent, of each seed."""
    return [row["metrics"] for row in results(system, dataset, 0, seeds=seeds, test_pictures=TESTED, **config)]


def gains(rows: Sequence[dict], others: Sequence[dict], name: str = "ap50_new") -> list[float]:
    """What the first have more than the second, seed by seed."""
    return [row[name] - other[name] for row, other in zip(rows, others, strict=True)]


def mean_of(rows: Sequence[dict], prefix: str = "", names: Sequence[str] = ("ap50_base", "ap50_new")) -> dict:
    """{prefix + name: mean over the seeds}, to two decimals."""
    return {prefix + name: round(spread([row[name] for row in rows])[0], 2) for name in names}


def arms(rows: dict[str, Sequence[dict]], names: Sequence[str] = ("ap50_base", "ap50_new")) -> dict:
    """`mean_of` each arm, by its name."""
    return {key: value for arm, found in rows.items() for key, value in mean_of(found, f"{arm}_", names).items()}


def ceilings(rows: Sequence[dict]) -> dict[str, float]:
    """What no student goes beyond on new classes, as `judged` takes them, of the first seed, in percent."""
    return {"recall of new objects": rows[0]["recall_new"], "the teacher's accuracy on them": rows[0]["teacher_new"]}


def verdict(
    system: str, claim: str, rows: Sequence[dict], others: dict[str, Sequence[dict]], differences: dict
) -> Verdict:
    """The verdict by these `gains`; `measured` has the system's AP50, that of the `others`, and both ceilings."""
    found = mean_of(rows) | arms(others) | mean_of(rows, names=("recall_new", "teacher_new"))
    return judged(system, claim, found, differences, ceilings(rows))
