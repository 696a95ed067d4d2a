"""The figures on the cards of the micro backbones: `python -m vlmlab.pretraining.measure micro-vit` prints them as JSON.

Every image is drawn afresh at the backbone's size, from seeds that pretraining does not use (its pool starts at `pretrain.POOL_SEED`).

Legend: B batch, C classes, e joint width, n images.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vlmlab.backbones.backbone import Backbone
from vlmlab.backbones.loading import load_backbone
from vlmlab.datasets.loading import load_dataset
from vlmlab.world.captions import caption, description, with_article
from vlmlab.world.domains import DOMAINS
from vlmlab.world.objects import BASE, NOVEL, OBJECTS, names
from vlmlab.world.painter import Picture, render
from vlmlab.world.palette import STUFF
from vlmlab.world.scene import Scene, sample_scene

TEMPLATES = ("a photo of {}", "a picture of {}", "an image of {}", "{}", "a drawing of {}")
SYNONYMS = {
    "cat": "kitten", "car": "automobile", "boat": "vessel", "plane": "airplane", "cup": "mug", "house": "cottage",
    "hat": "fedora", "book": "novel", "shirt": "blouse", "glasses": "spectacles", "donut": "doughnut", "bird": "pigeon",
    "bottle": "flask",
}  # fmt: skip
"""Words that no caption of pretraining uses, for categories that captions name."""


@torch.no_grad()
def image_features(backbone: Backbone, pictures: Sequence[np.ndarray]) -> Tensor:
    """Unit global features [n, e] of images [S, S, 3]."""
    batches = [np.stack(pictures[i : i + 100]) for i in range(0, len(pictures), 100)]
    return F.normalize(torch.cat([backbone.encode_image(backbone.preprocess(b)) for b in batches]).float(), dim=-1)


@torch.no_grad()
def word_features(backbone: Backbone, phrases: Sequence[str]) -> Tensor:
    """Unit rows [C, e]: each phrase, with its article, in five templates."""
    return backbone.class_embeddings(list(phrases), list(TEMPLATES)).float()


def named(words: Sequence[str]) -> list[str]:
    """Names with their article, as captions have them."""
    return [w if w in ("scissors", "glasses", "spectacles") else with_article(w) for w in words]


def singles(
    categories: Sequence[str], each: int, style: str, seed: int, size: int, background: str | None = None
) -> list[Picture]:
    """`each` images with one object of every category, category by category."""
    rng = np.random.default_rng(seed)
    scenes = [
        sample_scene(rng, categories=[c], style=style, background=background) for c in categories for _ in range(each)
    ]
    return [render(s, size) for s in scenes]


def _top1(features: Tensor, classes: Tensor, labels: Tensor) -> float:
    return round(100 * ((features @ classes.T).argmax(1) == labels).float().mean().item(), 1)


def zero_shot(backbone: Backbone, each: int = 10) -> dict[str, float]:
    """Top-1 in % over the known names, per style (chance 2 %)."""
    known = names("known")
    classes = word_features(backbone, named(known))
    labels = torch.arange(len(known)).repeat_interleave(each)
    out = {}
    for style in ("photo", "flat", "silhouette", "sketch", "mosaic", "negative"):
        pictures = singles(known, each, style, 501, backbone.image_size)
        out[style] = _top1(image_features(backbone, [p.pixels for p in pictures]), classes, labels)
    return out


def names_or_descriptions(backbone: Backbone, each: int = 10) -> dict[str, dict[str, float]]:
    """Photo top-1 in % among all categories, by name and by description, for each status of the name."""
    every = tuple(OBJECTS)
    by_name = word_features(backbone, named(every))
    by_parts = word_features(backbone, [with_article(description(c)) for c in every])
    out = {}
    for status in ("known", "rare", "withheld", "unseen"):
        group = names(status)
        labels = torch.tensor([every.index(c) for c in group]).repeat_interleave(each)
        pictures = singles(group, each, "photo", 502, backbone.image_size)
        features = image_features(backbone, [p.pixels for p in pictures])
        out[status] = {"name": _top1(features, by_name, labels), "description": _top1(features, by_parts, labels)}
    return out


def synonyms(backbone: Backbone, each: int = 20) -> dict[str, float]:
    """Photo top-1 in % of the categories of SYNONYMS among the known names: by the pretrained name, and with the name replaced by a synonym."""
    known = names("known")
    classes = word_features(backbone, named(known))
    pairs = {c: s for c, s in SYNONYMS.items() if c in known}
    swapped = classes.clone()
    swapped[[known.index(c) for c in pairs]] = word_features(backbone, named(tuple(pairs.values())))
    labels = torch.tensor([known.index(c) for c in pairs]).repeat_interleave(each)
    pictures = singles(tuple(pairs), each, "photo", 503, backbone.image_size)
    features = image_features(backbone, [p.pixels for p in pictures])
    return {"name": _top1(features, classes, labels), "synonym": _top1(features, swapped, labels)}


@torch.no_grad()
def dense(backbone: Backbone, objects: int, pool: Sequence[str], scenes: int = 100) -> dict[str, float]:
    """Mean IoU of MaskCLIP's labels when the names in the image and its background are given, over distinct objects.

    Every pixel takes the best of the image's own categories and of its background; the attention of the class token in
    the last block is compared with the objects' share of the area. Averages over the classes that occur.
    """
    rng = np.random.default_rng(504 + objects)
    hit, union = np.zeros(len(pool) + 1), np.zeros(len(pool) + 1)
    on_object, area = [], []
    words, ground = word_features(backbone, named(pool)), word_features(backbone, STUFF)
    for _ in range(scenes):
        chosen = [pool[int(i)] for i in rng.permutation(len(pool))[:objects]]
        scene = sample_scene(rng, categories=chosen, style="photo", background=STUFF[int(rng.integers(len(STUFF)))])
        picture = render(scene, backbone.image_size)
        images = backbone.preprocess(picture.pixels[None])
        local = F.normalize(backbone.image.local_features(images).float(), dim=1)[0]
        labels = [pool.index(c) for c in chosen]
        texts = torch.cat([ground[[STUFF.index(scene.background)]], words[labels]])
        scores = F.interpolate(
            torch.einsum("ehw,ce->chw", local, texts)[None], size=picture.instances.shape, mode="bilinear"
        )
        lut = np.array([0, *(k + 1 for k in labels)])
        guess = lut[scores[0].argmax(0).numpy()]
        truth = np.array([0, *(pool.index(c) + 1 for c in scene.categories)])[picture.instances]
        for k in lut:
            hit[k] += ((guess == k) & (truth == k)).sum()
            union[k] += ((guess == k) | (truth == k)).sum()
        attention = backbone.image.attention(images)[-1][0].mean(0)[0, 1:]
        side = local.shape[-1]
        share = F.adaptive_avg_pool2d(torch.from_numpy(picture.instances > 0).float()[None], side).flatten()
        on_object.append((attention @ share / attention.sum()).item())
        area.append(share.mean().item())
    occurs = union > 0
    return {
        "miou": round(float((hit[occurs] / union[occurs]).mean()), 3),
        "attention_on_objects": round(float(np.mean(on_object)), 3),
        "area_of_objects": round(float(np.mean(area)), 3),
    }


@torch.no_grad()
def masks(backbone: Backbone) -> dict[str, float]:
    """How many true masks of tableau's validation images the mean of their places names right among all 54 names, in %, for things of
    base and novel categories and for stuff."""
    tableau = load_dataset("tableau")
    things, data = len(tableau.classes), tableau.with_stuff()
    words = backbone.class_embeddings(list(data.classes), list(data.templates)).float()
    right: dict[str, list[bool]] = {"base": [], "novel": [], "stuff": []}
    for i in range(len(data.val)):
        truth = data.val.truth(i)
        assert truth.instances is not None and truth.semantic is not None, "tableau has both"
        semantic = truth.semantic.long()
        shown = [(mask, int(c)) for mask, c in zip(truth.instances, truth.labels, strict=True)]
        shown += [(semantic == c, c) for c in semantic.unique().tolist() if c >= things]
        local = backbone.image.local_features(backbone.preprocess(data.val.images([i])))
        local = F.normalize(local.float(), dim=1)[0]
        for mask, c in shown:
            cover = F.interpolate(mask[None, None].float(), size=local.shape[-2:], mode="area")[0, 0]
            kind = "stuff" if c >= things else "novel" if data.classes[c] in data.novel else "base"
            right[kind].append(int((words @ (local * cover).sum((1, 2))).argmax()) == c)
    return {kind: round(100 * sum(found) / len(found), 1) for kind, found in right.items()}


def retrieval(backbone: Backbone, scenes: int = 1000) -> dict[str, float]:
    """Recall in % among `scenes` photo scenes with one caption each, in the words of pretraining."""
    rng = np.random.default_rng(506)
    drawn: list[Scene] = [sample_scene(rng, pool=names("known"), style="photo") for _ in range(scenes)]
    images = image_features(backbone, [render(s, backbone.image_size).pixels for s in drawn])
    with torch.no_grad():
        texts = F.normalize(backbone.encode_text([caption(s, rng) for s in drawn]).float(), dim=-1)
    scores = images @ texts.T
    own = scores.diagonal()
    return {
        f"{way} R@{k}": round(100 * (rank < k).float().mean().item(), 1)
        for way, rank in (("image to text", (scores > own[:, None]).sum(1)), ("text to image", (scores > own).sum(0)))
        for k in (1, 5)
    }


def crops(backbone: Backbone, categories: Sequence[str], count: int = 300) -> float:
    """Top-1 in % over the known names of crops around one object of a scene with two or three, box enlarged 1 to 1.5 times."""
    rng, size = np.random.default_rng(507), backbone.image_size
    known = names("known")
    pictures: list[np.ndarray] = []
    labels: list[int] = []
    while len(labels) < count:
        scene = sample_scene(rng, count=2 + int(rng.integers(2)), pool=categories, style="photo")
        picture = render(scene, size)
        at = int(rng.integers(len(scene.objects)))
        x0, y0, x1, y1 = picture.boxes[at].tolist()
        half = max(x1 - x0, y1 - y0, size * 6 / 64) / 2 * rng.uniform(1, 1.5)
        cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
        left, top, right, bottom = (
            int(np.clip(round(v), 0, size)) for v in (cx - half, cy - half, cx + half, cy + half)
        )
        crop = torch.from_numpy(picture.pixels[top:bottom, left:right].copy()).permute(2, 0, 1)[None].float()
        large = F.interpolate(crop, size=(size, size), mode="bicubic", antialias=True).clamp(0, 255)
        pictures.append(large[0].permute(1, 2, 0).round().byte().numpy())
        labels.append(known.index(scene.objects[at].category))
    return _top1(image_features(backbone, pictures), word_features(backbone, named(known)), torch.tensor(labels))


def domains(backbone: Backbone, pictures: int = 300) -> dict[str, float]:
    """Zero-shot top-1 in % on each specialised domain, with its own templates, over all of its classes."""
    out = {}
    for name, domain in DOMAINS.items():
        rng = np.random.default_rng(508)
        labels = torch.arange(pictures) % len(domain.classes)
        features = image_features(backbone, [domain.sample(int(k), rng, backbone.image_size) for k in labels])
        with torch.no_grad():
            classes = backbone.class_embeddings([c.name for c in domain.classes], list(domain.templates)).float()
        out[f"{name} ({len(domain.classes)})"] = _top1(features, classes, labels)
    return out


def measure(name: str) -> dict:
    """All figures of the card of one micro backbone."""
    backbone = load_backbone(name, device="cpu")
    figures = {
        "backbone": name,
        "logit_scale": round(float(backbone.logit_scale), 1),
        "zero_shot_known_names": zero_shot(backbone),
        "names_and_descriptions": names_or_descriptions(backbone),
        "synonyms": synonyms(backbone),
        "domains": domains(backbone),
        "retrieval_1000": retrieval(backbone),
        "crops": {"base": crops(backbone, BASE), "novel": crops(backbone, NOVEL)},
    }
    figures["masks"] = masks(backbone)
    for objects in (1, 3):
        figures[f"dense_{objects}"] = {"base": dense(backbone, objects, BASE), "novel": dense(backbone, objects, NOVEL)}
    return figures


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1] if len(sys.argv) > 1 else "micro-vit"), indent=1))
