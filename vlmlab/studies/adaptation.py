"""What the report `adaptation` computes and says; its notebook only shows it.

Every number comes from `run_experiment` through a result store, so that a stopped report goes on where it was.
"""

from __future__ import annotations

import dataclasses
import html
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from vlmlab.datasets.catalog import BY_NAME
from vlmlab.errors import VlmlabError, unknown
from vlmlab.files import write_atomically
from vlmlab.registry import WITHOUT_SHOTS, load_system, registry, system_label
from vlmlab.studies.experiment import Experiment, read_settings, settings_for
from vlmlab.studies.store import ResultStore
from vlmlab.studies.sweep import MeasuredAgain, sweep, systems_of
from vlmlab.studies.table import spread

TEMPLATE = "a photo of a {}."

LIGHTER: dict[str, dict[str, int]] = {
    "tpt": {"n_views": 8},
    "maple": {"epochs": 4},
    "tip_adapter": {"passes": 1},
    "tip_adapter_f": {"passes": 1},
}
"""Settings that keep a report short; the settings table of the report shows them. For the same reason a test-time system,
which learns again for every test image, runs with the first seed alone: another seed changes its views, not what it learns
from."""

MANY_CLASSES = 20
LIGHTER_MANY: dict[str, dict[str, int | float]] = {
    "coop": {"batch_size": 128},
    "maple": {"batch_size": 32, "lr": 0.01, "epochs": 2},
}
"""The same for a dataset of more classes than `MANY_CLASSES`: every step encodes all of them, and there are as many more
images, so larger batches make fewer of these steps. What that costs, on validation images of objects-silhouette at 16
shots, seed 0: CoOp 94.2 % (94.0 % with its own batches, in six times the seconds), MaPLe 90.7 % (92.4 % with its own batches
and three passes, in three times the seconds)."""


EVERY = "all"
"""Stands for every system of survey section 6 that classifies, in `systems`; in `base_new` for those of the report."""

MOST_IN_A_CHART = 8
"""Lines that one can tell apart; with more systems there is a chart per family."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a report is asked to do; see the parameters of notebooks/reports/adaptation.ipynb."""

    systems: Sequence[str]
    datasets: Sequence[str]
    backbone: str
    shots: Sequence[int]
    seeds: Sequence[int]
    workers: int
    store: Path
    base_new: Sequence[str] = ("coop", "maple")
    root: str = ""
    download: bool = False
    test_pictures: int = 0
    settings: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Spell out "all" and check the settings.

        Raises `VlmlabError` for a setting that no system of the report has, and for a value that its system cannot take.
        """
        systems = list(self.systems)
        if EVERY in systems:
            table = registry()
            systems = [key for key in systems_of("6")[1:] if "classification" in table[key].tasks]
        chosen = systems if EVERY in self.base_new else [key for key in systems if key in self.base_new]
        object.__setattr__(self, "systems", systems)
        object.__setattr__(self, "base_new", chosen)
        for name, _ in read_settings(self.settings):
            system, dot, own = name.rpartition(".")
            if dot and system not in systems:
                raise unknown("system of the report", system, systems)
            known = {field for key in ([system] if dot else systems) for field in _fields(key)}
            if own not in known:
                raise unknown("setting", own, sorted(known))
        for key in systems:
            if key in registry():
                load_system(key).configure(SimpleNamespace(embedded=False), **self.asked(key))

    def config(self, system: str, dataset: str) -> dict[str, int | float | str]:
        """What the report sets otherwise than the system's defaults: what keeps it short, then what the user asked for.

        A setting without a system's name goes to every system that has it.
        """
        return short_settings(system, dataset) | self.asked(system)

    def asked(self, system: str) -> dict[str, str]:
        """What the user set of this system, alone or with all that have the setting."""
        own = settings_for(system, read_settings(self.settings))
        return {name: own[name] for name in own if name in _fields(system)}

    def experiments(self) -> tuple[list[Experiment], list[Experiment]]:
        """The few-shot experiments (all classes), and those that learn on base classes with the most shots."""
        table, few, base = registry(), [], []
        for system in self.systems:
            info = table.get(system)
            without = info is not None and not info.takes_shots
            once = info is not None and info.setup == "test-time"
            for dataset in self.datasets:
                for seed in self.seeds[:1] if once else self.seeds:
                    common = {
                        "system": system,
                        "dataset": dataset,
                        "backbone": self.backbone,
                        "seed": seed,
                        "config": self.config(system, dataset),
                        "root": self.root or None,
                        "test_pictures": self.test_pictures,
                    }
                    few += [Experiment(**common, shots=k) for k in ([0] if without else self.shots)]
                    if system in self.base_new:
                        base.append(Experiment(**common, shots=0 if without else max(self.shots), split="base"))
        return few, base


def _fields(system: str) -> set[str]:
    """Names of the settings of a system; none if the system is not known, whose runs then say so."""
    return {field.name for field in dataclasses.fields(load_system(system).Config)} if system in registry() else set()


def short_settings(system: str, dataset: str) -> dict[str, int | float]:
    """What keeps a report short: settings other than the system's defaults."""
    from vlmlab.studies.run import shared_dataset

    known, classes = BY_NAME.get(dataset), 0
    if known:
        classes = known.classes
    elif Path(dataset).is_dir():
        classes = len(shared_dataset(dataset).classes)
    return LIGHTER.get(system, {}) | (LIGHTER_MANY.get(system, {}) if classes > MANY_CLASSES else {})


@dataclasses.dataclass
class Results:
    """Results as `vlmlab run --json` prints them, the one-line reasons of what failed, and those of measuring again."""

    few_shot: list[dict]
    base_new: list[dict]
    failures: list[str]
    again: list[str] = dataclasses.field(default_factory=list)


def run(plan: Plan) -> Results:
    """Run what is not in the store yet.

    Raises `VlmlabError` if nothing at all succeeded (the first reason).
    """
    few, base = plan.experiments()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MeasuredAgain)  # the summary says it
        outcomes = sweep([*few, *base], ResultStore(plan.store), workers=plan.workers, download=plan.download)
    failures = _reasons([(o.experiment, o.failure) for o in outcomes if o.failure])
    done = [o.result for o in outcomes[: len(few)] if o.result]
    if not done:
        raise VlmlabError(failures[0] if failures else "the report has no system, dataset, shots or seed to run")
    new = [o.result for o in outcomes[len(few) :] if o.result and "new" in o.result["metrics"]]
    return Results(done, new, failures, list(dict.fromkeys(o.changed for o in outcomes if o.changed)))


def _reasons(failed: Sequence[tuple[Experiment, str]]) -> list[str]:
    """One line per system and reason, because a backbone that cannot carry a system says so for every run."""
    groups: dict[tuple[str, str], list[Experiment]] = {}
    for experiment, reason in failed:
        groups.setdefault((experiment.system, reason), []).append(experiment)
    lines = []
    for (system, reason), own in groups.items():
        where = str(own[0]) if len(own) == 1 else f"{system} ({len(own)} runs)"
        lines.append(f"{where}: {reason}")
    return lines


def by_family(rows: Sequence[dict]) -> dict[str, list[dict]]:
    """The rows of each chart: all of them in one (named ""), or family by family if there are too many systems."""
    systems = {row["system"] for row in rows}
    if len(systems) <= MOST_IN_A_CHART:
        return {"": list(rows)} if rows else {}
    families: dict[str, list[dict]] = {}
    for row in rows:
        families.setdefault(registry()[row["system"]].family.replace("_", " "), []).append(row)
    return families


def _mean(rows: Sequence[dict], metric: str = "accuracy", of: str = "metrics") -> str:
    mean, deviation = spread([r[of][metric] for r in rows])
    return f"{mean:.1f}" if len(rows) == 1 else f"{mean:.1f} ± {deviation:.1f}"


def summary(results: Results) -> str:
    """The result in a few sentences of Markdown, one per dataset; what failed, and what was measured again."""
    lines = []
    for dataset in dict.fromkeys(r["dataset"] for r in results.few_shot):
        rows = [r for r in results.few_shot if r["dataset"] == dataset]
        groups: dict[tuple[str, int], list[dict]] = {}
        for r in rows:
            groups.setdefault((r["system"], r["shots"]), []).append(r)
        (system, shots), best = max(groups.items(), key=lambda g: spread([r["metrics"]["accuracy"] for r in g[1]])[0])
        lines.append(
            f"- **{dataset}**: zero-shot prediction is right on {_mean(rows[:1], of='zero_shot')} % of the test "
            f"images; the best here is {system_label(system)} with {shots} shot{'s' * (shots != 1)} per class, {_mean(best)} %."
        )
    lines += [f"- not run: {failure}" for failure in results.failures]
    lines += [f"- measured again, since {why}" for why in results.again]
    return "\n".join(lines)


def _table(header: Sequence[str], rows: Sequence[Sequence]) -> str:
    head = "".join(f"<th style='text-align:left'>{html.escape(str(cell))}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


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
    header = ("system", "learns", "shots", "parameters", "seconds", "peak MB", f"accuracy on {dataset} (%)")
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


@dataclasses.dataclass
class Inside:
    """One adapted system, opened: confusions by title, learned words, losses, attention images."""

    title: str
    classes: list[str]
    confusions: dict[str, np.ndarray]
    words: list
    losses: list[float]
    attention: tuple | None


def look_inside(plan: Plan) -> Inside:
    """Adapt one system with learned context (CoOp if it is in the plan) once more and keep what is inside it."""
    from vlmlab.learning.evaluate import predict
    from vlmlab.learning.words import nearest_words
    from vlmlab.studies.run import adapt, some

    learning = [s for s in plan.systems if registry()[s].setup not in WITHOUT_SHOTS]
    system = "coop" if "coop" in plan.systems else (learning or list(plan.systems))[0]
    dataset = plan.datasets[-1]
    config = plan.config(system, dataset)
    one = Experiment(
        system, dataset, plan.backbone, max(plan.shots), plan.seeds[0], config=config, root=plan.root or None
    )
    adapted = adapt(one, download=plan.download)
    method, task, backbone = adapted.method, adapted.task, adapted.bank.backbone
    baseline = load_system("zero_shot")(backbone)
    baseline.prepare(task)
    tested = some(task.test, plan.test_pictures)
    labels = tested.labels
    confusions = {}
    for title, one in ((f"{dataset}: zero-shot", baseline), (f"{dataset}: {system_label(system)}", method)):
        predicted = predict(one, tested, adapted.bank).argmax(1)
        confusions[title] = _confusion(labels, predicted, len(task.classes))
    context = getattr(method, "context", None)
    words = nearest_words(backbone.text, context) if context is not None and context.ndim == 2 else []
    return Inside(
        title=f"{system_label(system)} on {dataset}",
        classes=list(task.classes),
        confusions=confusions,
        words=words,
        losses=adapted.record.losses,
        attention=_attention(backbone, task),
    )


def _confusion(true: torch.Tensor, predicted: torch.Tensor, classes: int) -> np.ndarray:
    matrix = np.zeros((classes, classes), int)
    np.add.at(matrix, (true.numpy(), predicted.numpy()), 1)
    return matrix


@torch.no_grad()
def _attention(backbone, task, count: int = 4) -> tuple | None:
    """Images of different classes with the class token's attention in the last layer, or None without a ViT."""
    if "attention" not in backbone.image.supports or backbone.image.kind != "vit":
        return None
    labels = task.test.labels
    chosen = [int((labels == c).nonzero()[0]) for c in range(0, len(task.classes), max(1, len(task.classes) // count))]
    pixels = [np.asarray(task.test.images(i)) for i in chosen[:count]]
    images = torch.cat([backbone.preprocess(torch.as_tensor(p)[None]) for p in pixels]).to(backbone.device)
    last = backbone.image.attention(images)[-1]  # [B, heads, T, T]
    rows, columns = backbone.image.grid(*images.shape[-2:])
    maps = last[:, :, 0, 1:].reshape(len(images), -1, rows, columns).float().cpu().numpy()
    return pixels, list(maps), [task.classes[int(labels[i])] for i in chosen[:count]]


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


@dataclasses.dataclass
class Photographs:
    """Arguments for `views.pictures.word_predictions` and `views.pictures.dense_maps`."""

    predictions: tuple
    maps: tuple


@torch.no_grad()
def photographs(
    backbone_name: str, words: Sequence[str], most: int = 9, dense: int = 6, side: int = 448
) -> Photographs:
    """Predict words for the photographs that come with scikit-image and scikit-learn, whole and per location.

    Raises `VlmlabError` for an empty list of words, or an empty word in it.
    """
    import torch.nn.functional as F

    from vlmlab.datasets.photographs import photographs as load_photographs
    from vlmlab.studies.run import shared_bank

    if not words or not all(word.strip() for word in words):
        raise VlmlabError("the list of words is empty or has an empty word; give words such as cat, tree, sky")
    backbone = shared_bank(backbone_name).backbone
    shown = [(name, image.copy()) for name, image in load_photographs()[:most]]  # Pillow's own memory is read-only
    text = backbone.class_embeddings(list(words), [TEMPLATE])
    pixels, names, probabilities, maps = [], [], [], []
    for name, image in shown:
        ready = backbone.preprocess(torch.as_tensor(image)[None]).to(backbone.device)
        feature = F.normalize(backbone.encode_image(ready), dim=-1)
        probabilities.append((backbone.logit_scale * feature @ text.T).softmax(-1)[0].float().cpu().numpy())
        pixels.append(image)
        names.append(name)
        if len(maps) < dense:
            maps.append(_dense(backbone, image, text, side))
    return Photographs(
        (pixels, names, np.stack(probabilities), list(words)),
        (pixels[: len(maps)], names[: len(maps)], maps, list(words)),
    )


def _dense(backbone, image: np.ndarray, text: torch.Tensor, side: int) -> np.ndarray:
    """Cosine of every location of a photograph with every word, [words, H, W] at the size of the image."""
    import torch.nn.functional as F

    height, width = image.shape[:2]
    scale = side / min(height, width)
    size = (round(height * scale / 32) * 32, round(width * scale / 32) * 32)
    x = torch.as_tensor(image).permute(2, 0, 1)[None].float() / 255
    x = F.interpolate(x, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    mean, std = (torch.as_tensor(v).view(1, 3, 1, 1).float() for v in (backbone.mean, backbone.std))
    local = F.normalize(backbone.image.local_features(((x - mean) / std).to(backbone.device)), dim=1)
    scores = torch.einsum("behw,ce->bchw", local, text)
    return F.interpolate(scores, (height, width), mode="bilinear", align_corners=False)[0].float().cpu().numpy()


def write_record(results: Results, shown: Photographs | None, path: Path) -> None:
    """Everything that the report says in numbers, as JSON."""
    _, names, probabilities, words = shown.predictions if shown else ((), (), (), ())
    record = {
        "few_shot": results.few_shot,
        "base_new": results.base_new,
        "failures": results.failures,
        "photographs": {
            name: {word: round(float(p), 4) for word, p in zip(words, row, strict=True)}
            for name, row in zip(names, probabilities, strict=True)
        },
    }
    write_atomically(path, json.dumps(record, indent=1, ensure_ascii=False))
