"""One adapted system, opened: what it confuses, what it learned, where its backbone looks."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
import torch.nn.functional as F

from vlmlab.registry import WITHOUT_SHOTS, load_system, registry, system_label
from vlmlab.studies.adaptation.plan import Plan
from vlmlab.studies.experiment import Experiment


@dataclasses.dataclass
class Inside:
    """One adapted system, opened: confusions by title (none where images have several labels), learned words, losses, attention images."""

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
    shots = max(plan.shots) if registry()[system].takes_shots else 0
    one = Experiment(system, dataset, plan.backbone, shots, plan.seeds[0], config=config, root=plan.root or None)
    adapted = adapt(one, download=plan.download)
    method, task, backbone = adapted.method, adapted.task, adapted.bank.backbone
    baseline = load_system("zero_shot")(backbone)
    baseline.prepare(task)
    tested = some(task.test, plan.test_pictures)
    labels = tested.labels
    confusions = {}
    if labels.ndim == 1:  # with one label per image
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
    shows = labels == 1 if labels.ndim == 2 else F.one_hot(labels, len(task.classes)) == 1  # [N, C]
    shown = {c: int(shows[:, c].nonzero()[0]) for c in range(len(task.classes)) if shows[:, c].any()}
    named = list(shown)[:: max(1, len(shown) // count)][:count]
    chosen = [shown[c] for c in named]
    pixels = [np.asarray(task.test.images(i)) for i in chosen]
    images = torch.cat([backbone.preprocess(torch.as_tensor(p)[None]) for p in pixels]).to(backbone.device)
    last = backbone.image.attention(images)[-1]  # [B, heads, T, T]
    rows, columns = backbone.image.grid(*images.shape[-2:])
    maps = last[:, :, 0, 1:].reshape(len(images), -1, rows, columns).float().cpu().numpy()
    return pixels, list(maps), [task.classes[c] for c in named]
