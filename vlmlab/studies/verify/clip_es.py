"""CLIP-ES: from image labels to maps, by a softmax with background words and by attention (arXiv 2212.09506)."""

from __future__ import annotations

from vlmlab.datasets.microworld import load_microworld
from vlmlab.datasets.task import Task
from vlmlab.methods.dense.cam_student import cam_miou
from vlmlab.methods.segmentation.clip_es import CLIPES
from vlmlab.studies.run import shared_bank
from vlmlab.studies.table import spread
from vlmlab.studies.verify import Verdict, judged
from vlmlab.studies.verify._measure import BACKBONE, SEEDS

claim = (
    "a softmax over the classes of the image and background words makes Grad-CAM's maps better, attention makes them better "
    "again, and the softmax without background words makes them worse"
)
cause = (
    "the step of attention is about one point and differs between draws by as much: eight by eight places leave little to "
    "spread, and boxes that end a place before the border, as the release's do, leave less"
)
IMAGES = 150  # of each draw's test images


def measure() -> Verdict:
    """Mean IoU of the maps in percent, over things and ground, on 150 test images whose labels are given; three draws of tableau,
    nothing else is random. The threshold is chosen on the validation images of the draw; `_oracle` is the best on the scored
    images themselves. Holds if every step, draw by draw, has a mean larger than its deviation.
    """
    backbone = shared_bank(BACKBONE).backbone
    steps: dict[str, list[float]] = {}
    oracle: dict[str, list[float]] = {}
    for seed in SEEDS:
        dataset = load_microworld("tableau", backbone.image_size, seed).with_stuff()
        val, test = dataset.val, dataset.test.subset(range(IMAGES))
        task = Task(backbone, dataset, 0, seed)
        for target in ("logit", "present", "background"):
            method = CLIPES(backbone, CLIPES.configure(backbone, target=target, threshold=0.5))
            method.set_classes(task.classes, task.templates)
            method.grounds = task.grounds
            method.set_map_words()
            for name, wide in ((target, False), (f"{target}_attention", True)):
                found = cam_miou(method, val, test, refined=wide)
                steps.setdefault(name, []).append(found["validation"])
                oracle.setdefault(name, []).append(found["oracle"])
    pairs = {
        "softmax": ("background", "logit"),
        "attention": ("background_attention", "background"),
        "words": ("logit", "present"),
    }
    measured = {name: round(spread(values)[0], 2) for name, values in steps.items()}
    measured |= {f"{name}_oracle": round(spread(values)[0], 2) for name, values in oracle.items()}
    differences = {
        name: [a - b for a, b in zip(steps[better], steps[worse], strict=True)]
        for name, (better, worse) in pairs.items()
    }
    return judged("clip_es", claim, measured, differences)
