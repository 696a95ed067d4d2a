"""VCD: it is the content of the descriptors that helps, not their number (arXiv 2210.07183)."""

from __future__ import annotations

import torch

from vlmlab.learning.evaluate import evaluate
from vlmlab.studies.experiment import Experiment
from vlmlab.studies.run import adapt
from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import BACKBONE

claim = "on names that pretraining never saw, descriptors beat the name alone, and those of another class do not"


def measure() -> Verdict:
    """objects-unnamed; the control moves every class's descriptors to the next class; holds if both parts do."""
    adapted = adapt(Experiment("vcd", "objects-unnamed", BACKBONE, 0, 1))
    method, test, bank = adapted.method, adapted.task.test, adapted.bank
    own = evaluate(method, test, bank)["accuracy"]
    classes, table = adapted.task.classes, method.descriptors
    others = torch.roll(torch.arange(len(classes)), 1).tolist()
    method.descriptors = {name: table[classes[k]] for name, k in zip(classes, others, strict=True)}
    method.set_classes(classes, adapted.task.templates)
    moved = evaluate(method, test, bank)["accuracy"]
    method.descriptors = {name: [""] for name in classes}
    method.own, method.texts = [[""]] * len(classes), list(classes)
    with torch.no_grad():
        method.features = torch.nn.functional.normalize(method.backbone.encode_text(classes), dim=-1)
    method.owner = torch.arange(len(classes))
    name = evaluate(method, test, bank)["accuracy"]
    measured = {"descriptors": round(own, 2), "of_another_class": round(moved, 2), "name_alone": round(name, 2)}
    return Verdict("vcd", claim, measured, own > name and own > moved)
