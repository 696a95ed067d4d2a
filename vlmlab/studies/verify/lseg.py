"""LSeg: frozen texts as the classifier of pixels (arXiv 2201.03546)."""

from __future__ import annotations

from vlmlab.learning.evaluate import evaluate
from vlmlab.studies.experiment import Experiment
from vlmlab.studies.run import adapt
from vlmlab.studies.table import spread
from vlmlab.studies.verify import Verdict, judged
from vlmlab.studies.verify._measure import BACKBONE, SEEDS

claim = "it answers synonyms of the names that it learned with, and names that had no mask, better than names that are dealt out wrongly"
SYNONYMS = {
    "cat": "kitten", "car": "automobile", "boat": "vessel", "plane": "airplane", "cup": "mug", "house": "cottage", "hat": "fedora",
    "book": "novel", "shirt": "blouse", "bird": "pigeon", "bottle": "flask",
}  # fmt: skip
IMAGES = 200  # of the test images


def measure() -> Verdict:
    """tableau with its stuff, three seeds; IoU in percent, all names competing.

    `name` is the mean over the taught classes that have a synonym here, `synonym` the same with their names replaced, and
    `synonym_wrong` with the synonyms dealt to one another; `new` and `new_wrong` are over the classes without masks, with their
    own names and with those dealt out. Holds if both gains over the wrong words exceed their deviation over the seeds.
    """
    rows = [_measured(seed) for seed in SEEDS]
    found = {name: round(spread([row[name] for row in rows])[0], 2) for name in rows[0]}
    differences = {name: [row[name] - row[f"{name}_wrong"] for row in rows] for name in ("synonym", "new")}
    return judged("lseg", claim, found, differences)


def _measured(seed: int) -> dict[str, float]:
    adapted = adapt(Experiment("lseg", "tableau", BACKBONE, 0, seed))
    method, task = adapted.method, adapted.task
    names, images = list(task.classes), task.test.subset(range(IMAGES))
    known = [c for c in task.base if names[c] in SYNONYMS]
    found = {}
    for name, classes, words in (
        ("name", known, [names[c] for c in known]),
        ("synonym", known, [SYNONYMS[names[c]] for c in known]),
        ("synonym_wrong", known, _dealt([SYNONYMS[names[c]] for c in known])),
        ("new", task.new, [names[c] for c in task.new]),
        ("new_wrong", task.new, _dealt([names[c] for c in task.new])),
    ):
        spoken = list(names)
        for c, word in zip(classes, words, strict=True):
            spoken[c] = word
        method.set_classes(spoken, task.templates)
        per_class = evaluate(method, images)["per_class"]
        values = [per_class[spoken[c]] for c in classes if spoken[c] in per_class]
        found[name] = sum(values) / len(values)
    return found


def _dealt(words: list[str]) -> list[str]:
    """Every word at the place of the one before it."""
    return words[1:] + words[:1]
