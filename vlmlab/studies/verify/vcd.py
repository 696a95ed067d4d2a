"""VCD: it is the content of the descriptors that helps, not their number (arXiv 2210.07183)."""

from __future__ import annotations

import torch

from vlmlab.learning.evaluate import evaluate
from vlmlab.studies.experiment import Experiment
from vlmlab.studies.run import adapt
from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import BACKBONE

claim = "on names that pretraining never saw, descriptors beat the name alone, and those of another class do not"
ALSO = ("creatures", "flowers")


def measure() -> Verdict:
    """objects-unnamed, the class name in front of each descriptor; the baseline is the release's, the bare name. The
    control moves every class's descriptors to the next class. Nothing is drawn at random; one standard error of an
    accuracy is below 1.8 points. Holds if both parts do. The gain over the bare name on two fine-grained sets, whose names
    the backbone knows, is reported."""

    def accuracy(system: str, dataset: str, **settings: str) -> float:
        adapted = adapt(Experiment(system, dataset, BACKBONE, 0, 1, config=tuple(settings.items())))
        return evaluate(adapted.method, adapted.task.test, adapted.bank)["accuracy"]

    adapted = adapt(Experiment("vcd", "objects-unnamed", BACKBONE, 0, 1))
    method, task = adapted.method, adapted.task
    own = evaluate(method, task.test, adapted.bank)["accuracy"]
    classes, table = task.classes, method.descriptors
    others = torch.roll(torch.arange(len(classes)), 1).tolist()
    method.descriptors = {name: table[classes[k]] for name, k in zip(classes, others, strict=True)}
    method.set_classes(classes, task.templates)
    moved = evaluate(method, task.test, adapted.bank)["accuracy"]
    name = accuracy("zero_shot", "objects-unnamed", templates="name")
    measured = {
        "descriptors": round(own, 2),
        "of_another_class": round(moved, 2),
        "name_alone": round(name, 2),
        "without_name": round(accuracy("vcd", "objects-unnamed", name="nowhere"), 2),
    }
    for dataset in ALSO:
        gain = accuracy("vcd", dataset) - accuracy("zero_shot", dataset, templates="name")
        measured[f"{dataset}_gain"] = round(gain, 2)
    return Verdict("vcd", claim, measured, own > name and own > moved and moved <= name)
