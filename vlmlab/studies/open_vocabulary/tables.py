"""What the reports on boxes and on pixels say in words and tables (Markdown and HTML)."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence

from vlmlab.learning.metrics import TITLES, main_metric, of_group
from vlmlab.registry import registry, system_label
from vlmlab.studies.comparable import SEES
from vlmlab.studies.open_vocabulary.plan import BASELINE, Results
from vlmlab.studies.table import measured, spread

Table = tuple[Sequence[str], Sequence[Sequence[object]], str]
"""Head, rows of cells, and a note in Markdown: the arguments of `vlmlab.book.table`, which shows it."""
RULES = {"fixed": "fixed rule", "validation": "validation images", "oracle": "oracle (the scored images)"}


def provenance(results: Results) -> str:
    """What was measured, in Markdown: day, backbone, seeds, images, versions."""
    row = results.rows[0]
    seeds = sorted({r["seed"] for r in results.rows})
    versions = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
    return (
        f"Written on {datetime.date.today().isoformat()}. Dataset {row['dataset']}, {row['images']} test images and "
        f"{row['validation_images']} validation images; backbone {row['backbone']}; seed{'s' * (len(seeds) > 1)} "
        f"{', '.join(map(str, seeds))}; {versions}."
    )


def protocol(results: Results) -> str:
    """Who saw what, which names compete, and how it is scored, in Markdown."""
    row = results.rows[0]
    base, new = row["names"]["base"], row["names"]["new"]
    setups = dict.fromkeys(registry()[key].setup for key in results.systems)
    taught = "; ".join(
        f"{', '.join(system_label(key) for key in results.systems if registry()[key].setup == setup)} "
        f"{'learn' if sum(registry()[key].setup == setup for key in results.systems) > 1 else 'learns'} from "
        f"{SEES.get(setup, 'no image at all')}"
        for setup in setups
    )
    scored = (
        "AP50: COCO's average precision of boxes at an IoU of 0.5, at most 100 boxes of an image, no threshold of scores"
        if results.task == "detection"
        else "mIoU: the mean over the classes that the ground truth shows; pixels without a class do not count"
    )
    return (
        f"- **Who saw what**: {taught}.\n"
        f"- **Names that compete**: all {len(base) + len(new)} at once (generalised): {len(base)} base classes, and "
        f"{len(new)} new ones, of which nobody saw a box or mask: {', '.join(new)}. *Restricted* means that only the names of new "
        "classes are asked for, in the images that show one: another protocol, not to be compared.\n"
        f"- **Score**: {scored}."
    )


def summary(results: Results) -> str:
    """The result in a few sentences of Markdown; losses against the training-free system are told, too."""
    name = TITLES[main_metric(results.rows[0]["metrics"])]
    lines = []
    for group, words in (
        ("new", "new classes"),
        ("base", "base classes"),
        ("harmonic_mean", "the harmonic mean of both"),
    ):
        means = {key: spread(_group(results, key, group))[0] for key in results.systems if _group(results, key, group)}
        if not means:
            continue
        best = max(means, key=lambda key: means[key])
        said = f"- In {name} on {words}, the best here is {system_label(best)}, {measured(_group(results, best, group))} %."
        ground = BASELINE[results.task]
        if ground in means:
            below = [
                f"{system_label(k)} ({m - means[ground]:.1f} points)" for k, m in means.items() if m < means[ground]
            ]
            said += (
                f" Below {system_label(ground)}, which learns nothing ({means[ground]:.1f} %): {', '.join(below)}."
                if below
                else f" Nothing here is below {system_label(ground)}, which learns nothing ({means[ground]:.1f} %)."
            )
        lines.append(said)
    return "\n".join([*lines, *(f"- not run: {failure}" for failure in results.failures)])


def main_table(results: Results) -> Table:
    """Base, new, all, harmonic mean and restricted; for detectors the ceilings, for segmenters pixel accuracy."""
    main = main_metric(results.rows[0]["metrics"])
    name, boxes = TITLES[main], results.task == "detection"
    columns: dict[str, Callable[[Mapping], float | None]] = {
        f"{name}, base": lambda r: r["metrics"].get(f"{main}_base"),
        "new": lambda r: r["metrics"].get(f"{main}_new"),
        "all": lambda r: r["metrics"][main],
        "harmonic mean": lambda r: r["metrics"].get("harmonic_mean"),
        "new, restricted": lambda r: r["inside"]["restricted"],
    }
    if boxes:
        columns |= {
            "recall of proposals, base": lambda r: r["metrics"].get("recall_base"),
            "new ": lambda r: r["metrics"].get("recall_new"),
            "teacher names true boxes, base": lambda r: r["metrics"].get("teacher_base"),
            "new  ": lambda r: r["metrics"].get("teacher_new"),
        }
    else:
        columns |= {"pixel accuracy": lambda r: r["metrics"]["pixel_accuracy"]}
    note = "Percent; ± is one standard deviation over seeds. An empty cell: the system has no such thing, or cannot be asked."
    return _by_system(results, columns, note)


def apart_table(results: Results) -> Table:
    """Places apart from names: the main metric with one of the two put right."""
    main = main_metric(results.rows[0]["metrics"])
    places, given = ("boxes", "given_boxes") if results.task == "detection" else ("masks", "")
    columns: dict[str, Callable[[Mapping], float | None]] = {}
    for group in ("base", "new"):
        columns[f"{group}: as it is"] = lambda r, g=group: r["metrics"].get(f"{main}_{g}")  # type: ignore[misc]
        for what in ("names", places):
            columns[f"{group}: true {what}"] = lambda r, g=group, w=what: r["inside"][f"true_{w}"].get(g)  # type: ignore[misc]
        if given:
            columns[f"{group}: true boxes as proposals"] = lambda r, g=group: (r["inside"][given] or {}).get(g)  # type: ignore[misc]
    note = (
        "AP50. *True names*: every detection that meets an object gets its name. *True boxes*: every detection that lies on an "
        "object of its name gets its box. *True boxes as proposals*: what is left are names alone (two-stage systems)."
        if given
        else "mIoU. *True names*: only the names of what an image shows compete. *True masks*: every true mask gets the one name that "
        "its pixels score highest on average."
    )
    return _by_system(results, columns, note)


def choices_table(results: Results) -> Table:
    """The one choice that is made on images, in three columns: a fixed rule, validation images, the scored images."""
    boxes = results.task == "detection"
    where, value = ("thresholds", "f1") if boxes else ("offsets", "harmonic_mean")
    columns: dict[str, Callable[[Mapping], float | None]] = {}
    for rule, words in RULES.items():
        columns[words] = lambda r, k=rule: r["inside"][where].get(k, {}).get(value)  # type: ignore[misc]
    columns["chosen on validation images"] = lambda r: r["inside"][where].get("validation", {}).get("at")
    note = (
        "F1 in percent of the boxes whose score reaches a threshold: 0.5; the best on validation images; the best on these very "
        "test images, which nobody may choose. The last column is the second one's threshold: scores of different systems mean "
        "different things. AP50 needs no threshold."
        if boxes
        else "Harmonic mean of base and new mIoU in percent, when something is taken from the scores of base classes before the largest "
        "wins: nothing; what is best on validation images; what is best on these very test images, which nobody may choose."
    )
    return _by_system(results, columns, note, digits=2)


def absent_table(results: Results) -> Table:
    """What words cost that name nothing in these images."""
    if results.task == "detection":
        main, alarm, key, name = "ap50", "false alarms per 100 images", "alarms", "AP50"
    else:
        main, alarm, key, name = "miou", "percent of the pixels taken", "share", "mIoU"

    def without(row: Mapping) -> float | None:
        found = (row["inside"]["absent"] or {}).get(main)
        return found["all"] if isinstance(found, dict) else found

    columns: dict[str, Callable[[Mapping], float | None]] = {
        alarm: lambda r: (r["inside"]["absent"] or {}).get(key),
        f"{name} without these words": lambda r: r["metrics"][main],
        f"{name} with them": without,
    }
    words = results.rows[0]["inside"]["absent_words"]
    sure = ", with a score that reaches the threshold of validation images" if results.task == "detection" else ""
    refused = dict.fromkeys(
        f"{system_label(r['system'])}: {r['inside']['refused']}." for r in results.rows if r["inside"]["refused"]
    )
    note = " ".join(
        [
            f"Words asked for beside the classes, none of which is in any image: {', '.join(words)}. Counted is what they take{sure}.",
            *refused,
        ]
    )
    return _by_system(results, columns, note)


def cost_table(results: Results) -> Table:
    """What each system learns and needs."""
    rows = []
    for key in results.systems:
        own = results.of(key)
        seconds = [r["cpu_seconds"] for r in own]
        rows.append(
            [system_label(key), registry()[key].learns, f"{own[0]['trainable_parameters']:,}", measured(seconds)]
        )
    note = "Seconds are of the processor, adaptation and evaluation together; what is frozen and cached counts once or not at all."
    return ["system", "learns", "parameters", "seconds"], rows, note


def settings_table(results: Results) -> Table:
    """The settings of each system."""
    rows = []
    for row in results.shown:
        settings = (
            f"{name} = {value!r}" if value == "" else f"{name} = {value}" for name, value in row["config"].items()
        )
        rows.append([system_label(row["system"]), ", ".join(settings) or "none"])
    return ["system", "settings"], rows, ""


def _group(results: Results, system: str, group: str) -> list[float]:
    return [value for r in results.of(system) if (value := of_group(r["metrics"], group)) is not None]


def _by_system(
    results: Results, columns: Mapping[str, Callable[[Mapping], float | None]], note: str, digits: int = 1
) -> Table:
    rows: list[Sequence[object]] = []
    for key in results.systems:
        cells: list[object] = [system_label(key)]
        for of in columns.values():
            values = [value for r in results.of(key) if (value := of(r)) is not None]
            cells.append(measured(values, digits) if values else None)
        rows.append(cells)
    return ["system", *(name.strip() for name in columns)], rows, note
