"""How good a method is on an image set, in the field's measures (torchmetrics).

Every figure is in percent, 0 to 100.

Dimensions: N images, B batch, C classes, S image side, H x W a mask.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from vlmlab.datasets.hierarchy import Hierarchy, LabelSet
from vlmlab.errors import VlmlabError
from vlmlab.features.bank import FeatureBank, as_evaluated, as_read, chunked, encodable
from vlmlab.features.decoding import name_seed
from vlmlab.learning.dense import Groups, confusion, detection, harmonic_mean, segmentation
from vlmlab.methods.dense.dense import Dense
from vlmlab.methods.dense.detector import Detector
from vlmlab.methods.dense.segmenter import Segmenter
from vlmlab.methods.method import Batch, Method
from vlmlab.randomness import LocalRandom

__all__ = ["calibration_error", "evaluate", "evaluate_hierarchy", "harmonic_mean", "predict"]

AT_ONCE = {"features": 1024, "images": 64, "regions": 64}  # images per call of `logits`: bounds the memory
PROMPTS_AT_ONCE = 512  # the same for a test-time system, which has a prompt per image and class in memory
CALIBRATION_BINS = 15  # as in Guo et al., "On Calibration of Modern Neural Networks" (arXiv 1706.04599)


def evaluate(
    method: Method, pictures, bank: FeatureBank | None = None, seed: int = 0, groups: Groups | None = None
) -> dict[str, Any]:
    """Measure `method` on an ImageSet whose labels count its classes; everything in percent.

    One label per image: {"accuracy" (top-1), "ece" (expected calibration error), "per_class": {class: accuracy}}.
    Several labels per image: {"map" (mean average precision over classes), "per_class": {class: precision}}.
    A system that segments: {"miou" (mean intersection over union), "pixel_accuracy", "per_class": {class: IoU}}, if it tells objects
    apart also {"pq", "mask_ap50", "mask_ap"}; one that detects: {"ap50", "ap", "per_class": {class: AP50}}; all by group, too, see
    `learning.dense`.
    A class that no image shows has no entry in "per_class" and no part in a mean.
    A label of -1 is unknown and takes no part in the precision of its class.

    Args:
        bank: the cache of frozen features; one in memory if None.
        seed: of the random views of a test-time system.
        groups: "base" and "new" class indices, for a system that detects or segments.

    Raises:
        VlmlabError: the set is empty, a segmentation system meets images without masks, or a score is not a number.
    """
    if not len(pictures):
        raise VlmlabError("there is no image to evaluate on")
    if isinstance(method, Segmenter):
        return segmentation(method, pictures, groups or {})
    if isinstance(method, Detector):
        return detection(method, pictures, groups or {})
    logits, labels = predict(method, pictures, bank, seed), pictures.labels
    return _several_labels(logits, labels, method.classes) if labels.ndim == 2 else _one_label(logits, labels, method)


@torch.no_grad()
def predict(method: Method, pictures, bank: FeatureBank | None = None, seed: int = 0) -> Tensor:
    """Logits [N, C] of every image, float32 on the CPU; arguments as for `evaluate`.

    A system that draws while it predicts draws from `seed`, whatever else the process computes.
    """
    bank = bank or FeatureBank(method.backbone, disk=False)
    features = bank.features(pictures).to(method.backbone.device) if method.eats == "features" else None
    rows = []
    most = AT_ONCE.get(method.eats) or min(32, max(1, PROMPTS_AT_ONCE // len(method.classes)))
    if method.info.setup == "transductive":
        most = len(pictures)  # it predicts for all of them together
    doing = f"{method.info.key}: evaluating"
    with contextlib.ExitStack() as until, LocalRandom(seed):
        if method.eats == "images" and not isinstance(method, Dense):
            encoded = encodable(method.backbone, pictures, most, as_evaluated(method.backbone), doing)
            shown: Iterator[Any] = until.enter_context(contextlib.closing(encoded))
        elif features is None:
            shown = until.enter_context(contextlib.closing(as_read(pictures, most, doing)))
        else:
            shown = chunked(len(pictures), most, doing)
        for start, given in zip(range(0, len(pictures), most), shown, strict=True):
            positions = range(start, min(start + most, len(pictures)))
            batch = Batch(index=torch.tensor(positions))
            if features is not None:
                batch.features = features[positions.start : positions.stop]
            elif isinstance(method, Dense):
                batch.images, _ = method.framed(given[1])
            elif method.eats == "images":
                batch.images = given
            else:
                seeds = [name_seed(pictures.ids[i], seed) for i in positions]
                batch.images = method.views(given[1], seeds).to(method.backbone.device)
            rows.append(method.logits(batch).float().cpu())
    logits = torch.cat(rows)
    if logits.isnan().any():
        raise VlmlabError(
            f"{method.info.key} gives scores that are not numbers; it diverged, try a smaller learning rate"
        )
    return logits


def evaluate_hierarchy(
    method: Method, pictures, tree: Hierarchy, bank: FeatureBank | None = None, seed: int = 0
) -> dict[str, Any]:
    """Whether answers at the levels of a class tree are right, and agree (ProTeCt, arXiv 2306.02240); in percent.

    {"accuracy" (among all leaves), "hca" (hierarchical consistency: right among the leaves and, at every node above the
    image's class, among the node's children), "mta" (mean accuracy over the `tree.cuts()`), "per_node": {inner node:
    accuracy among its children, over the images below it}}. The method is left on the classes that it had.

    Args:
        pictures: an ImageSet whose labels count the tree's classes.
        bank, seed: as for `evaluate`.

    Raises:
        VlmlabError: images have several labels, or the method cannot move to other names than its classes.
    """
    if not len(pictures):
        raise VlmlabError("there is no image to evaluate on")
    if pictures.labels.ndim == 2:
        raise VlmlabError("hierarchical accuracy is for images with one label each; choose objects")
    labels, bank = pictures.labels, bank or FeatureBank(method.backbone, disk=False)
    asked: dict[tuple[str, ...], Tensor] = {}

    def right(labelset: LabelSet) -> Tensor:
        """Whether each image gets its own name among those of the label set, [N]."""
        if labelset.names not in asked:  # a cut may be the leaves, or the children of the root
            method.set_classes(labelset.names, method.templates)
            asked[labelset.names] = predict(method, pictures, bank, seed).argmax(1)
        return asked[labelset.names] == labelset.of_class[labels]

    classes = list(method.classes)
    try:
        leaf = right(tree.leaves)
        consistent, per_node = leaf.clone(), {}
        for node in tree.inner:
            below = tree.below(node).of_class[labels] >= 0
            good = right(tree.below(node))
            consistent &= good | ~below
            if below.any():
                per_node[node] = 100 * float(good[below].float().mean())
        cuts = [float(right(cut).float().mean()) for cut in tree.cuts()]
    finally:
        method.set_classes(classes, method.templates)
    return {
        "accuracy": 100 * float(leaf.float().mean()),
        "hca": 100 * float(consistent.float().mean()),
        "mta": 100 * sum(cuts) / len(cuts),
        "per_node": per_node,
    }


def _one_label(logits: Tensor, labels: Tensor, method: Method) -> dict[str, Any]:
    classes = logits.shape[1]
    matrix = confusion(logits.argmax(1), labels, classes).double()
    right, shown = matrix.diag(), matrix.sum(1)
    return {
        "accuracy": 100 * float(right.sum() / shown.sum()),
        "ece": 100 * calibration_error(logits.softmax(1), labels),
        "per_class": {
            name: 100 * float(right[c] / shown[c]) for c, name in enumerate(method.classes[:classes]) if shown[c]
        },
    }


def calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """Expected calibration error, 0 to 1, of probabilities [N, C] (Guo et al., arXiv 1706.04599)."""
    from torchmetrics.functional.classification import multiclass_calibration_error  # seconds to import

    return float(multiclass_calibration_error(probabilities, labels, probabilities.shape[1], CALIBRATION_BINS, "l1"))


def _several_labels(logits: Tensor, labels: Tensor, classes: list[str]) -> dict[str, Any]:
    from torchmetrics.functional.classification import binary_average_precision

    shown = [c for c in range(labels.shape[1]) if (labels[:, c] == 1).any()]
    if not shown:
        raise VlmlabError("none of these images shows any of the classes; mean average precision is not defined")
    per_class = {}
    for c in shown:
        # Average precision depends on the order of the scores alone. torchmetrics would squash logits by a sigmoid, which
        # saturates at CLIP's scale and makes ties, so it is given ranks; equal scores have equal ranks.
        rank = logits[:, c].unique(return_inverse=True)[1] / len(logits)
        per_class[classes[c]] = 100 * float(binary_average_precision(rank, labels[:, c], ignore_index=-1))
    return {"map": sum(per_class.values()) / len(per_class), "per_class": per_class}
