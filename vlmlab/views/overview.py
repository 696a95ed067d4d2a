"""The image in the README: what there is to learn on, and what a small VLM sees in it.

`python -m vlmlab.views.overview data/overview.png` makes it again, in half a minute, from the embedded backbones.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from vlmlab.views.pictures import heat, labelled
from vlmlab.views.style import CLASSES, INK, MUTED, figure

SUITE = (
    "objects", "objects-sketch", "objects-silhouette", "objects-mosaic", "objects-v2", "creatures", "flowers",
    "vehicles", "food", "textures", "aerial", "scenes", "actions", "digits",
)  # fmt: skip
PHOTO_WORDS = ("cat", "a cup of coffee", "temple", "sky", "tree", "table", "wall", "a flower", "leaves", "fur")


def suite(pictures: Sequence[np.ndarray], captions: Sequence[str], seen: Sequence[tuple]) -> Figure:
    """Two rows of small images [H, W, 3] with captions, above rows of what a model sees.

    seen: (title, list of (pixels, caption), words) per row; `words` is a list of (word, colour) for its legend.
    """
    columns = -(-len(pictures) // 2)
    fig = figure(1.55 * columns, 3.9 + 2.55 * len(seen))
    parts = fig.subfigures(1 + len(seen), 1, height_ratios=[3.9, *[2.55] * len(seen)])
    top = parts[0] if len(seen) else parts
    top.suptitle("Datasets that draw themselves, with the zero-shot accuracy of micro-vit", fontsize=11, color=INK)
    for axes, pixels, caption in zip(top.subplots(2, columns).flat, pictures, captions, strict=False):
        axes.imshow(pixels)
        axes.set_title(caption, fontsize=8.5, color=INK)
        axes.set_axis_off()
    for part, (title, panels, words) in zip(parts[1:], seen, strict=True):
        part.suptitle(title, fontsize=11, color=INK)
        for axes, (pixels, caption) in zip(part.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            axes.imshow(pixels)
            axes.set_title(caption, fontsize=8.5, color=MUTED)
            axes.set_axis_off()
        handles = [Patch(color=to_rgb(colour), label=word) for word, colour in words]
        part.legend(handles=handles, loc="outside lower center", ncols=8, frameon=False, fontsize=8.5)
    return fig


def _micro(words_at_most: int = 8) -> tuple[list, list, tuple]:
    """Images of the suite, their captions, and one scene seen by micro-vit."""
    import torch
    import torch.nn.functional as F

    from vlmlab.datasets import Task, load_dataset
    from vlmlab.learning.evaluate import evaluate
    from vlmlab.registry import load_system
    from vlmlab.studies.run import shared_bank

    bank = shared_bank("micro-vit", "cpu")
    backbone = bank.backbone
    pictures, captions = [], []
    for name in SUITE:
        dataset = load_dataset(name)
        task = Task(backbone, dataset, shots=0)
        method = load_system("zero_shot")(backbone)
        method.prepare(task)
        accuracy = evaluate(method, dataset.test, bank)["accuracy"]
        pictures.append(np.asarray(dataset.test.images(0)))
        captions.append(f"{name.replace('objects-', 'objects, ')}: {accuracy:.0f} %")
    tableau = load_dataset("tableau")
    # The first test scene with three objects: not chosen for its looks.
    chosen = next(i for i in range(len(tableau.test)) if int(tableau.test.labels[i].sum()) == 3)
    pixels = np.asarray(tableau.test.images(chosen))
    _, semantic = tableau.test.masks(chosen)
    every = [*tableau.classes, *tableau.stuff]
    present = [k for k in np.unique(semantic).tolist() if 0 <= k < len(every)]
    with torch.no_grad():
        images = backbone.preprocess(torch.as_tensor(pixels)[None])
        text = backbone.class_embeddings([every[k] for k in present], ["a photo of a {}."])
        local = F.normalize(backbone.image.local_features(images), dim=1)
        scores = F.interpolate(torch.einsum("behw,ce->bchw", local, text), pixels.shape[:2], mode="bilinear")[0]
        attention = backbone.image.attention(images)[-1][0].mean(0)[0, 1:]
    rows, columns = backbone.image.grid(*images.shape[-2:])
    truth = np.full(semantic.shape, -1)
    for n, k in enumerate(present):
        truth[semantic == k] = n
    panels = [
        (pixels, "a scene"),
        (heat(pixels, attention.reshape(rows, columns).numpy()), "attention of the class token"),
        (labelled(pixels, truth), "true labels"),
        (labelled(pixels, scores.argmax(0).numpy()), "MaskCLIP's labels"),
    ]
    words = [(every[k], CLASSES[n]) for n, k in enumerate(present)][:words_at_most]
    return pictures, captions, ("Where it looks, and what is where (micro-vit)", panels, words)


def _photo() -> tuple:
    """Two photographs seen by the backbone `photo`."""
    from vlmlab.studies.adaptation import photographs

    shown = photographs("photo", list(PHOTO_WORDS))
    pixels, names, maps, words = shown.maps
    panels, used = [], set()
    for image, name, score in list(zip(pixels, names, maps, strict=True))[:2]:
        winner = score.argmax(0)
        used |= set(np.flatnonzero(np.bincount(winner.ravel(), minlength=len(words)) > 0.04 * winner.size).tolist())
        side = min(image.shape[:2])
        panels += [(image[:side, :side], name), (labelled(image, winner)[:side, :side], "the nearest word")]
    legend = [(words[k], CLASSES[k % len(CLASSES)]) for k in sorted(used)]
    return ("Photographs, in words that you choose (photo)", panels, legend)


def main(path: Path) -> None:
    """Write the image to `path`."""
    pictures, captions, seen = _micro()
    suite(pictures, captions, [seen, _photo()]).savefig(path, facecolor="white")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
