"""Fine-grained correlation: can a text pick out its part of a scene with several objects?

A scene shows two objects of different colours. A phrase names the first of them ("a red cat"), and must find the scene among
others that differ from it in this object alone: another colour, another category in its place, both. Two ways to change the
colour ask for different things: a "new" one was nowhere in the scene; "exchanged" gives the first object the colour of the other
and the other its own, so that red is in all scenes, and has to be seen where the cat is. What is compared is the way in which
looks t_1 .. t_K at an image are pooled for a phrase w, all of unit length:

    whole:     w . f                              f [e] the image's own feature
    nearest:   max_k w . t_k
    attended:  w . n(sum_k a_k t_k),   a = softmax_k(w A t_k / tau)           A = I, or learned                    (1)

Looks are the tokens of one pass through the tower (MaskCLIP's value path), or windows of the image, each sent through the tower as
an image of its own. A [e, e] is learned on other scenes of base categories by the cross-entropy of the scores.

Two ceilings say where a loss comes from. `inside` pools the tokens that lie in the true mask of the object: no attention can
point better. `cropped` sends the object's true box through the tower. The micro backbones' tokens had region supervision on base
categories, so novel ones are the test.

Dimensions: G groups of V variants, T tokens, K looks, e joint width, S image side.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from vlmlab.errors import unknown
from vlmlab.studies.directions.encoded import encoded_pixels
from vlmlab.studies.run import shared_bank
from vlmlab.world.captions import PAIRS, with_article
from vlmlab.world.objects import BASE, NOVEL
from vlmlab.world.painter import render
from vlmlab.world.palette import COLOURS
from vlmlab.world.scene import Scene, sample_scene

VARIANTS = ("as it is", "new colour", "exchanged colours", "category", "category, new colour", "category, exchanged")
CHANGES = {"new": (0, 1, 3, 4), "exchanged": (0, 2, 3, 5)}
"""Where the other colour comes from (nowhere in the scene, or the other object) -> the variants among which the first is sought."""
KINDS = {"base": tuple(BASE), "novel": tuple(NOVEL)}
WINDOW = 0.625
"""Side of a window as a share of the image's; there are four in the corners and one in the middle."""
TAU = 0.05
SCALE = 40.0
"""Of the scores in the loss, the least logit scale of micro-vit's pretraining."""

Pool = Callable[[Tensor, Tensor], Tensor]
"""(unit phrase [e], unit looks [n, K, e] at n images) -> scores [n]."""


@dataclasses.dataclass(frozen=True)
class Groups:
    """Phrases and the variants of their scenes; all features are of unit length.

    Attributes:
        kind: "base" or "novel".
        asked: (colour, category) of the first object, per group.
        words: the phrases [G, e]; captions [G, e] of both objects.
        features: of the whole images [G, V, e].
        tokens: [G, V, T, e].
        ink: share of each token's cell that the first object covers [G, V, T].
        pixels: uint8 [G, V, S, S, 3].
        boxes: of the first object [G, V, 4], x0 y0 x1 y1 in pixels.
    """

    kind: str
    asked: tuple[tuple[str, str], ...]
    words: Tensor
    captions: Tensor
    features: Tensor
    tokens: Tensor
    ink: Tensor
    pixels: np.ndarray
    boxes: np.ndarray

    @property
    def said(self) -> tuple[str, ...]:
        """The phrases."""
        return tuple(f"a photo of {phrase(*one)}" for one in self.asked)

    @functools.cached_property
    def windows(self) -> Tensor:
        """The five windows of each image, encoded [G, V, 5, e]."""
        return self._looked(lambda image, _: [_window(image, box) for box in _boxes(len(image))])

    @functools.cached_property
    def crops(self) -> Tensor:
        """The true box of the first object, encoded [G, V, e]."""
        return self._looked(lambda image, box: [_window(image, _roomy(box, len(image)))])[:, :, 0]

    def _looked(self, look: Callable[[np.ndarray, np.ndarray], list[np.ndarray]]) -> Tensor:
        """Unit features [G, V, K, e] of the K images that a function makes of an image [S, S, 3] and its box [4]."""
        flat = zip(self.pixels.reshape(-1, *self.pixels.shape[2:]), self.boxes.reshape(-1, 4), strict=True)
        made = np.stack([look(image, box) for image, box in flat])  # [G V, K, S, S, 3]
        features = encoded_pixels(made.reshape(-1, *made.shape[2:]))
        return features.unflatten(0, (*self.pixels.shape[:2], made.shape[1]))


def phrase(colour: str, name: str) -> str:
    """A colour (or "") and a name, with the article that they want."""
    text = f"{colour} {name}".strip()
    return text if name in PAIRS else with_article(text)


def variants(rng: np.random.Generator, pool: tuple[str, ...]) -> tuple[list[Scene], tuple[str, str], str]:
    """The scenes of VARIANTS, (colour, category) of the first object, and a caption of both objects of the first scene."""
    one, other, instead = (str(name) for name in rng.choice(pool, 3, replace=False))
    mine, its, fresh = (str(c) for c in rng.choice(list(COLOURS), 3, replace=False))
    scene = sample_scene(rng, categories=[one, other], style="photo", colours=list(COLOURS))
    asked, rest = scene.objects
    drawn = [
        dataclasses.replace(
            scene,
            objects=(dataclasses.replace(asked, category=name, colour=own), dataclasses.replace(rest, colour=others)),
        )
        for name in (one, instead)
        for own, others in ((mine, its), (fresh, its), (its, mine))
    ]
    return drawn, (mine, one), f"a photo of {phrase(mine, one)} and {phrase(its, other)}"


@functools.lru_cache(8)
def groups(kind: str = "base", count: int = 40, seed: int = 0) -> Groups:
    """So many groups of scenes of "base" or "novel" categories, encoded by micro-vit.

    Raises `VlmlabError` for another kind.
    """
    if kind not in KINDS:
        raise unknown("kind of categories", kind, KINDS)
    rng = np.random.default_rng([13, seed, kind == "base"])
    found = [variants(rng, KINDS[kind]) for _ in range(count)]
    pictures = [render(scene) for drawn, _, _ in found for scene in drawn]
    pixels = np.stack([picture.pixels for picture in pictures])
    tokens, grid = _tokens(pixels)
    masks = torch.stack([torch.from_numpy(np.asarray(picture.instances) == 1).float() for picture in pictures])
    cells = F.adaptive_avg_pool2d(masks[:, None], grid).flatten(1)
    boxes = np.stack([picture.boxes[0] for picture in pictures])

    def by_group(rows: Tensor) -> Tensor:
        return rows.unflatten(0, (-1, len(VARIANTS)))

    return Groups(
        kind,
        tuple(asked for _, asked, _ in found),
        _spoken([f"a photo of {phrase(*asked)}" for _, asked, _ in found]),
        _spoken([caption for _, _, caption in found]),
        by_group(encoded_pixels(pixels)),
        by_group(tokens),
        by_group(cells),
        pixels.reshape(-1, len(VARIANTS), *pixels.shape[1:]),
        boxes.reshape(-1, len(VARIANTS), 4),
    )


@torch.no_grad()
def _tokens(pixels: np.ndarray) -> tuple[Tensor, tuple[int, int]]:
    """Unit tokens [n, T, e], and the grid (rows, columns) on which they stand."""
    backbone = shared_bank("micro-vit").backbone
    chunks = np.array_split(pixels, -(-len(pixels) // 100))
    found = torch.cat([backbone.image.local_features(backbone.preprocess(chunk)) for chunk in chunks]).float()
    return F.normalize(found.flatten(2).transpose(1, 2), dim=-1), (found.shape[2], found.shape[3])


@torch.no_grad()
def _spoken(texts: list[str]) -> Tensor:
    """Unit features [n, e]."""
    return F.normalize(shared_bank("micro-vit").backbone.encode_text(texts).float(), dim=-1)


def _boxes(side: int) -> list[tuple[int, int, int, int]]:
    size = round(WINDOW * side)
    far, half = side - size, (side - size) // 2
    return [(x, y, x + size, y + size) for x, y in ((0, 0), (far, 0), (0, far), (far, far), (half, half))]


def _roomy(box: np.ndarray, side: int, margin: int = 4) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = (int(v) for v in box)
    return max(0, x0 - margin), max(0, y0 - margin), min(side, x1 + margin), min(side, y1 + margin)


def _window(image: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """A part of an image [S, S, 3] at the size of the whole."""
    whole = Image.fromarray(image)
    return np.asarray(whole.crop(box).resize(whole.size, Image.Resampling.BICUBIC))


def nearest(word: Tensor, looks: Tensor) -> Tensor:
    """The best look at each image."""
    return (looks @ word).amax(-1)


def attended(word: Tensor, looks: Tensor, A: Tensor | None = None, tau: float = TAU) -> Tensor:
    """(1) for one phrase [e] and n images; also for phrases [G, 1, e] and looks [G, n, K, e]."""
    asked = word if A is None else word @ A
    a = ((looks * asked[..., None, :]).sum(-1) / tau).softmax(-1)  # [..., K]
    pooled = F.normalize((a[..., None] * looks).sum(-2), dim=-1)
    return (pooled * word).sum(-1)


def against(found: Groups, features: Tensor) -> Tensor:
    """Scores [G, V] of the phrases with one unit feature per image [G, V, e]."""
    return torch.einsum("ge,gve->gv", found.words, features)


def inside(found: Groups) -> Tensor:
    """Unit mean [G, V, e] of the tokens under the first object's true mask."""
    return F.normalize(torch.einsum("gvt,gvte->gve", found.ink, found.tokens), dim=-1)


def scores(found: Groups, pool: Pool, looks: Tensor | None = None) -> Tensor:
    """Scores [G, V] of a way to pool the looks [G, V, K, e]; these are the tokens if None."""
    looks = found.tokens if looks is None else looks
    return torch.stack([pool(word, own) for word, own in zip(found.words, looks, strict=True)])


def first(given: Tensor, change: str) -> float:
    """Percent of the groups whose first variant is above the three others of a change, from scores [G, V]; chance is 25.

    Raises `VlmlabError` for a change that is not in CHANGES.
    """
    if change not in CHANGES:
        raise unknown("change of colour", change, CHANGES)
    own = given[:, list(CHANGES[change])]
    return 100 * float((own[:, :1] > own[:, 1:]).all(1).float().mean())


def retrieval(found: Groups, pool: Pool | None = None, looks: Tensor | None = None) -> float:
    """Percent of the captions of both objects that find their image among the first variants of all groups, by the whole
    feature or by a way to pool looks [G, V, K, e]; these are the tokens if None."""
    if pool is None:
        given = found.captions @ found.features[:, 0].T
    else:
        looks = found.tokens if looks is None else looks
        given = torch.stack([pool(caption, looks[:, 0]) for caption in found.captions])
    return 100 * float((given.argmax(1) == torch.arange(len(given))).float().mean())


def told(found: Groups, features: Tensor) -> dict[str, float]:
    """What features [G, e] of the first variants tell of its first object, in percent: "category", among all of its kind, and
    "colour", among all colours of the right category."""
    names, colours = KINDS[found.kind], list(COLOURS)
    kinds = _spoken([f"a photo of {phrase('', name)}" for name in names])
    named = torch.tensor([names.index(name) for _, name in found.asked])
    looked = torch.tensor([colours.index(colour) for colour, _ in found.asked])
    painted = _spoken([f"a photo of {phrase(c, name)}" for _, name in found.asked for c in colours])
    by_colour = torch.einsum("ge,gce->gc", features, painted.unflatten(0, (-1, len(colours))))
    return {
        "category": 100 * float(((features @ kinds.T).argmax(1) == named).float().mean()),
        "colour": 100 * float((by_colour.argmax(1) == looked).float().mean()),
    }


def learned(found: Groups, steps: int = 60, lr: float = 3e-3, seed: int = 0) -> Tensor:
    """A [e, e] of (1), learned on the tokens of these groups by the cross-entropy of the scores of all variants."""
    A = torch.eye(found.words.shape[1]).requires_grad_(True)
    optimizer = torch.optim.Adam([A], lr=lr)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        index = torch.randperm(len(found.words), generator=generator)[:32]
        given = attended(found.words[index, None], found.tokens[index], A)  # [B, V]
        loss = F.cross_entropy(SCALE * given, torch.zeros(len(index), dtype=torch.long))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return A.detach()
