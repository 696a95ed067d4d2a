"""What a report says in words and tables (Markdown and HTML)."""

from __future__ import annotations

import datetime
import html
from collections.abc import Sequence

import numpy as np

from vlmlab.learning.metrics import TITLES, main_metric
from vlmlab.registry import registry, system_label
from vlmlab.studies.adaptation.results import Results
from vlmlab.studies.table import spread


def provenance(results: Results) -> str:
    """One sentence of Markdown on what was measured: day, backbone, seeds, test images and versions."""
    rows = [*results.few_shot, *results.base_new]
    if not rows:
        return ""
    backbones, seeds = (sorted({str(r[name]) for r in rows}) for name in ("backbone", "seed"))
    images = rows[0].get("test_pictures")
    tested = f"about {images} test images of each dataset" if images else "all test images of each dataset"
    versions = ", ".join(f"{name} {version}" for name, version in rows[0]["versions"].items())
    return (
        f"Written on {datetime.date.today().isoformat()}. Backbone {', '.join(backbones)}; "
        f"seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}; {tested}; {versions}."
    )


def summary(results: Results) -> str:
    """The result in a few sentences of Markdown: the best of each dataset, and who falls below zero-shot prediction.

    What failed and what was measured again is told, too.
    """
    lines = []
    for dataset in dict.fromkeys(r["dataset"] for r in results.few_shot):
        rows = [r for r in results.few_shot if r["dataset"] == dataset]
        groups: dict[tuple[str, int], list[dict]] = {}
        for r in rows:
            groups.setdefault((r["system"], r["shots"]), []).append(r)
        for metric in dict.fromkeys(main_metric(r["metrics"]) for r in rows):
            own = {key: group for key, group in groups.items() if main_metric(group[0]["metrics"]) == metric}
            (system, shots), best = max(own.items(), key=lambda g: spread([r["metrics"][metric] for r in g[1]])[0])
            taught = f" with {shots} shot{'s' * (shots != 1)} per class" if registry()[system].takes_shots else ""
            lines.append(
                f"- **{dataset}**: {_zero_shot(best, metric)}the best here is {system_label(system)}{taught}, {_mean(best)} %."
                f"{_losses(own, metric)}"
            )
    lines += [f"- not run: {failure}" for failure in results.failures]
    lines += [f"- measured again, since {why}" for why in results.again]
    return "\n".join(lines)


def cost_table(few_shot: Sequence[dict]) -> str:
    """HTML: what each system learns and needs at its most shots, on the first dataset."""
    dataset = few_shot[0]["dataset"]
    rows = []
    for system in dict.fromkeys(r["system"] for r in few_shot):
        own = [r for r in few_shot if r["system"] == system and r["dataset"] == dataset]
        most = [r for r in own if r["shots"] == max(r["shots"] for r in own)]
        info = registry()[system]
        rows.append(
            (
                system_label(system),
                info.learns,
                most[0]["shots"],
                f"{most[0]['trainable_parameters']:,}",
                f"{np.mean([r['seconds'] for r in most]):.1f}",
                f"{np.mean([r['peak_mb'] for r in most]):.0f}",
                _mean(most),
            )
        )
    header = (
        "system",
        "learns",
        "shots",
        "parameters",
        "seconds",
        "peak MB",
        f"{TITLES[main_metric(few_shot[0]['metrics'])]} on {dataset} (%)",
    )
    return _table(header, rows) + "<p>Seconds are adaptation and evaluation together, one thread.</p>"


def settings_table(results: Results) -> str:
    """HTML: the settings of each system, where datasets differ for each of them, and the versions behind the numbers."""
    rows = []
    for system in dict.fromkeys(r["system"] for r in results.few_shot):
        used: dict[str, list[str]] = {}  # settings -> the datasets that they were used on
        for r in results.few_shot:
            if r["system"] == system:
                text = ", ".join(f"{k} = {v!r}" if v == "" else f"{k} = {v}" for k, v in r["config"].items()) or "none"
                used.setdefault(text, []).append(r["dataset"])
        for text, datasets in used.items():
            where = f" on {', '.join(dict.fromkeys(datasets))}" if len(used) > 1 else ""
            rows.append((system_label(system) + where, text))
    rows += [(name, version) for name, version in results.few_shot[0]["versions"].items()]
    return _table(("system or package", "settings or version"), rows)


def words_table(words: Sequence) -> str:
    """HTML: nearest words of each learned vector beside those of a random vector of the same norm."""
    if not words:
        return "<p>The system that was opened learns no shared context vectors.</p>"
    rows = [
        (
            f"v{m + 1}",
            ", ".join(f"{w} ({d:.2f})" for w, d in zip(near.words, near.cosines, strict=True)),
            ", ".join(f"{w} ({d:.2f})" for w, d in zip(near.random_words, near.random_cosines, strict=True)),
            f"{near.norm:.2f}",
        )
        for m, near in enumerate(words)
    ]
    return _table(("vector", "nearest words (cosine)", "of a random vector", "norm"), rows)


def _losses(groups: dict[tuple[str, int], list[dict]], metric: str) -> str:
    """A sentence on the groups (system, shots) whose mean is below zero-shot prediction on the same images."""
    below = []
    for (system, shots), rows in groups.items():
        if metric not in rows[0]["zero_shot"]:
            return ""
        change = float(np.mean([r["metrics"][metric] - r["zero_shot"][metric] for r in rows]))
        if change < 0:
            taught = f", {shots} shot{'s' * (shots != 1)}" if registry()[system].takes_shots else ""
            below.append(f"{system_label(system)}{taught} ({change:.1f} points)")
    if not below:
        return " Nothing here is below zero-shot prediction."
    return f" Below zero-shot prediction: {', '.join(below)}."


def _zero_shot(rows: Sequence[dict], metric: str) -> str:
    """The first half of a sentence of the summary; empty if zero-shot prediction has no such metric."""
    if metric not in rows[0]["zero_shot"]:
        return f"in {TITLES[metric]} "
    found = _mean(rows[:1], of="zero_shot")
    if metric == "accuracy":
        return f"zero-shot prediction is right on {found} % of the test images; "
    return f"in {TITLES[metric]}, zero-shot prediction has {found} %; "


def _mean(rows: Sequence[dict], of: str = "metrics") -> str:
    """The main metric, in percent, and its deviation over the seeds."""
    mean, deviation = spread([r[of][main_metric(r["metrics"])] for r in rows])
    return f"{mean:.1f}" if len(rows) == 1 else f"{mean:.1f} ± {deviation:.1f}"


def _table(header: Sequence[str], rows: Sequence[Sequence]) -> str:
    head = "".join(f"<th style='text-align:left'>{html.escape(str(cell))}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
