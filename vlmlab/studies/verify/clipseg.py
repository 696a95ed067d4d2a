"""CLIPSeg: sentences and images as prompts of one decoder (arXiv 2112.10003)."""

from __future__ import annotations

import torch
from torch import Tensor

from vlmlab.studies.experiment import Experiment
from vlmlab.studies.run import adapt
from vlmlab.studies.table import spread
from vlmlab.studies.verify import Verdict, judged
from vlmlab.studies.verify._measure import BACKBONE, SEEDS

claim = (
    "a sentence alone and an image alone find things whose masks were never shown, although training mixed the two; without "
    "absent phrases in training, absent classes are found more often"
)
IMAGES = 150  # scored; image prompts come from the test images behind them
THRESHOLD = 0.3  # of the release


def measure() -> Verdict:
    """tableau, three seeds: foreground IoU in percent of classes that an image shows, over new things; prompts are the
    sentences, or the first image prompt of each class among other test images; `_wrong` are the prompts of another new class.
    `absent` is the share of pixels in percent that are called a class which the image does not show.

    Holds if both kinds of prompts beat the wrong ones, and if absent classes get more pixels without negatives, each by more
    than the deviation over the seeds.
    """
    rows = [_measured(seed, 0.2) for seed in SEEDS]
    without = [_measured(seed, 0.0) for seed in SEEDS]
    found = {name: round(spread([row[name] for row in rows])[0], 2) for name in rows[0]}
    found["absent_without_negatives"] = round(spread([row["absent"] for row in without])[0], 2)
    differences = {
        "sentence": [row["sentence"] - row["sentence_wrong"] for row in rows],
        "image": [row["image"] - row["image_wrong"] for row in rows],
        "negatives": [b["absent"] - a["absent"] for a, b in zip(rows, without, strict=True)],
    }
    return judged("clipseg", claim, found, differences)


def _measured(seed: int, negatives: float) -> dict[str, float]:
    adapted = adapt(Experiment("clipseg", "tableau", BACKBONE, 0, seed, "all", (("negatives", negatives),)))
    return _told(adapted.method, adapted.task.test, adapted.task.new)


@torch.no_grad()
def _told(method, test, new: list[int]) -> dict[str, float]:
    raw, frames = method.framed([test.images(i) for i in range(IMAGES)])
    truth = torch.stack([f.truth(test.truth(i)).semantic.long() for i, f in enumerate(frames)])
    sentences = method.text.mean(1)
    shown = torch.stack([_shown(method, test, c) for c in new])
    found = {}
    for kind, prompts in (("sentence", sentences[new]), ("image", shown)):
        for name, own in ((kind, prompts), (f"{kind}_wrong", prompts.roll(1, 0))):
            found[name] = _foreground(_called(method, raw, own), truth, new)
    called = _called(method, raw, sentences)
    absent = torch.stack([(truth != c).all(1).all(1) for c in range(len(sentences))], 1)
    found["absent"] = 100 * float(called.float().mean((2, 3))[absent].mean())
    return found


def _called(method, images: Tensor, prompts: Tensor) -> Tensor:
    """Whether each pixel is called what each prompt says: bool [B, n, S, S]."""
    return torch.cat([method.maps_by(part, prompts).sigmoid() > THRESHOLD for part in images.split(50)]).cpu()


def _foreground(called: Tensor, truth: Tensor, classes: list[int]) -> float:
    """IoU in percent of the maps [B, n, S, S] of classes with what is there, over all pairs of an image and a class in it."""
    is_there = truth[:, None] == torch.tensor(classes)[:, None, None]
    shown, known = is_there.any(-1).any(-1), (truth >= 0)[:, None]
    both = (called & is_there)[shown].sum()
    either = ((called | is_there) & known)[shown].sum()
    return 100 * float(both / either)


def _shown(method, test, c: int) -> Tensor:
    """The prompt [e] of the first test image behind the scored ones that shows class `c`."""
    for i in range(IMAGES, len(test)):
        if test.labels[i, c] > 0:
            images, (frame,) = method.framed([test.images(i)])
            mask = frame.truth(test.truth(i)).semantic == c
            if mask.any():
                return method.image_prompts(images, mask[None].to(images.device))[0]
    raise ValueError(f"no test image shows class {c}")
