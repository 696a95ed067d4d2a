"""Few pairs and rewritten captions: images stay locked, and a small text tower learns from scratch what captions say.

The images are scenes of objects, encoded once by micro-vit. A text tower (word vectors, their mean, two layers) learns against
these features with CLIP's loss. So wording, noise and richness of captions are free, and an arm takes a second or two:

    t = n(W2 gelu(W1 mean_l v_l)),    loss = (CE(s F T^T, i) + CE(s T F^T, i)) / 2           F [B, e] locked, T [B, e]

Word order is lost in the mean, which is what makes this fast; names, colours and places are not. The number that counts is
zero-shot accuracy over the names of objects, mean over datasets in several styles.

Dimensions: n images, B batch, L words, d word width, e joint width.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.errors import unknown
from vlmlab.randomness import LocalRandom
from vlmlab.studies.directions.encoded import accuracy, encoded, encoded_pixels
from vlmlab.studies.run import shared_bank
from vlmlab.world.captions import COLOURED, ON, OPENINGS, PAIRS, caption, with_article
from vlmlab.world.mixture import SHOWN, STYLES
from vlmlab.world.objects import OBJECTS
from vlmlab.world.painter import render
from vlmlab.world.palette import COLOURS
from vlmlab.world.scene import Scene, sample_scene

DATASETS = ("objects", "objects-sketch", "objects-mosaic")
DIETS = ("one caption", "reworded", "looked again", "everything", "invented")
"""One caption for good; its content in other words; another caption of the scene each time; all that is in the scene; all, with
invented things among it."""
SCALE = 40.0
"""The least logit scale of micro-vit's own pretraining."""

Diet = Callable[[Scene, np.random.Generator], str]
"""A caption of a scene, drawn afresh whenever the image is met."""


@dataclasses.dataclass(frozen=True)
class Locked:
    """Scenes with their frozen features: scenes [n], features [n, e] of unit length."""

    scenes: tuple[Scene, ...]
    features: Tensor


@functools.lru_cache(4)
def locked(count: int = 1500, seed: int = 0) -> Locked:
    """So many scenes as pretraining shows them, encoded by micro-vit."""
    rng = np.random.default_rng([5, seed])
    scenes = tuple(sample_scene(rng, pool=SHOWN, styles=STYLES) for _ in range(count))
    return Locked(scenes, encoded_pixels(np.stack([render(scene).pixels for scene in scenes])))


def everything(scene: Scene, rng: np.random.Generator, invented: float = 0.0) -> str:
    """All objects with their colours, and the background; each is joined with this probability by one that is not there."""
    things = []
    for o in scene.objects:
        things.append(_thing(OBJECTS[o.category].name, o.colour if scene.style in COLOURED else ""))
        if rng.random() < invented:
            things.append(_thing(str(rng.choice(SHOWN)), str(rng.choice(list(COLOURS)))))
    order = rng.permutation(len(things))
    openings = OPENINGS[scene.style]
    place = f" {ON[scene.background]}" if scene.style in COLOURED and scene.background in ON else ""
    return f"{openings[int(rng.integers(len(openings)))]} {' and '.join(things[k] for k in order)}{place}"


def _thing(name: str, colour: str) -> str:
    phrase = f"{colour} {name}".strip()
    return phrase if name in PAIRS else with_article(phrase)


def reworded(text: str, scene: Scene, rng: np.random.Generator) -> str:
    """The same content: another opening, and what is joined by "and" in another order."""
    start = next((o for own in OPENINGS.values() for o in own if text.startswith(f"{o} ")), "")
    parts = text.removeprefix(start).strip().split(" and ")
    if " with " not in text:  # the parts of a description belong together
        parts = [parts[k] for k in rng.permutation(len(parts))]
    openings = ("", *OPENINGS[scene.style])
    return f"{openings[int(rng.integers(len(openings)))]} {' and '.join(parts)}".strip()


def diet(name: str, invented: float = 0.5) -> Diet:
    """One of DIETS as a function of scene and generator.

    Raises `VlmlabError` for another name.
    """
    if name not in DIETS:
        raise unknown("diet", name, DIETS)
    if name == "looked again":
        return caption
    if name in ("everything", "invented"):
        return functools.partial(everything, invented=invented if name == "invented" else 0.0)

    def fixed(scene: Scene, rng: np.random.Generator) -> str:
        once = caption(scene, np.random.default_rng(scene.seed))  # the same whenever the scene comes
        return once if name == "one caption" else reworded(once, scene, rng)

    return fixed


class Tower(nn.Module):
    """Word vectors, their mean, two layers; words that it never met count for nothing."""

    def __init__(self, words: Sequence[str], width: int = 128, out: int = 128) -> None:
        super().__init__()
        self.place = {word: k + 1 for k, word in enumerate(sorted(set(words)))}
        self.vectors = nn.EmbeddingBag(len(self.place) + 1, width, mode="mean", padding_idx=0)
        self.layers = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, out))

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Unit features [B, e]."""
        rows = [[self.place.get(word, 0) for word in text.split()] or [0] for text in texts]
        starts = np.cumsum([0, *(len(row) for row in rows[:-1])])
        flat = torch.tensor([k for row in rows for k in row])
        return F.normalize(self.layers(self.vectors(flat, torch.from_numpy(starts))), dim=-1)


def trained(
    images: Locked,
    texts: Diet | Sequence[str],
    steps: int = 300,
    batch: int = 128,
    seed: int = 0,
    keep: Tensor | None = None,
    every: int = 0,
) -> tuple[Tower, list[tuple[int, float]]]:
    """A tower trained on locked images, and its (step, mean zero-shot accuracy) each `every` steps (0: none).

    Args:
        texts: a diet, or one caption per image for good.
        keep: places of the images that take part, all if None.
    """
    rng, index = np.random.default_rng([6, seed]), torch.arange(len(images.scenes)) if keep is None else keep
    vocabulary = {
        word for i in range(len(images.scenes)) for _ in range(4) for word in _said(texts, images, i, rng).split()
    }
    with LocalRandom(seed):
        tower = Tower(sorted(vocabulary))
    optimizer = torch.optim.AdamW(tower.parameters(), lr=3e-3, weight_decay=0.01)
    curve = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / steps)
        chosen = index[torch.from_numpy(rng.permutation(len(index))[:batch])]
        t = tower([_said(texts, images, int(i), rng) for i in chosen])
        logits = SCALE * images.features[chosen] @ t.T
        target = torch.arange(len(chosen))
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if every and (step + 1) % every == 0:
            curve.append((step + 1, zero_shot(tower)))
    return tower, curve


def _said(texts: Diet | Sequence[str], images: Locked, i: int, rng: np.random.Generator) -> str:
    return texts(images.scenes[i], rng) if callable(texts) else texts[i]


@torch.no_grad()
def zero_shot(tower: Tower) -> float:
    """Mean accuracy (%) over DATASETS with the names of objects in three sentences each."""
    found = []
    for name in DATASETS:
        one = encoded(name)
        said = [[f"{o} {_thing(c, '')}".strip() for o in ("a photo of", "a picture of", "")] for c in one.classes]
        words = F.normalize(tower([text for own in said for text in own]).view(len(said), 3, -1).mean(1), dim=-1)
        found.append(accuracy(one.features @ words.T, one.labels))
    return float(np.mean(found))


@functools.lru_cache(64)
def arm(
    name: str, steps: int = 200, images: int = 1000, seed: int = 0, invented: float = 0.5
) -> tuple[tuple[int, float], ...]:
    """(step, mean zero-shot accuracy in %) of a tower on one diet, four times along the way; the same arm is made once."""
    return tuple(trained(locked(images), diet(name, invented), steps, seed=seed, every=max(1, steps // 4))[1])


# --- half of the captions are wrong -----------------------------------------------------------------------------------


def noisy(images: Locked, share: float = 0.5, seed: int = 0) -> tuple[list[str], Tensor]:
    """One caption per image, a share of them moved to other images, and which are true [n]."""
    rng = np.random.default_rng([8, seed])
    texts = [caption(scene, rng) for scene in images.scenes]
    moved = rng.permutation(len(texts))[: round(share * len(texts))]
    given = list(texts)
    for here, there in zip(moved, np.roll(moved, 1), strict=True):
        given[here] = texts[there]
    true = torch.ones(len(texts), dtype=torch.bool)
    true[torch.from_numpy(moved)] = False
    return given, true


@torch.no_grad()
def teacher_scores(images: Locked, texts: Sequence[str]) -> Tensor:
    """Cosine [n] of each image with its caption by micro-vit, which knows everything already."""
    backbone = shared_bank("micro-vit").backbone
    parts = [backbone.encode_text(list(texts[i : i + 250])) for i in range(0, len(texts), 250)]
    return (images.features * F.normalize(torch.cat(parts).float(), dim=-1)).sum(-1)


@torch.no_grad()
def own_scores(images: Locked, texts: Sequence[str], tower: Tower) -> Tensor:
    """Cosine [n] by a tower that was trained on these very pairs, wrong ones among them."""
    return (images.features * tower(texts)).sum(-1)


def better_half(scores: Tensor) -> Tensor:
    """Places [n / 2] of the highest scores [n]."""
    return scores.topk(len(scores) // 2).indices
