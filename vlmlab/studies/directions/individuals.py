"""Another task, re-identification: does a model that names kinds tell individuals of a kind apart?

An individual is an object with its own proportions, colour and texture. It is drawn several times, each time at another place,
turned, on another ground. A query is to find the other images of its individual among all images of all individuals.

    rank-1: the nearest other image shows the same individual.   mean AP: average precision of the ranking, mean over queries

What differs between individuals is chosen: with "shape" alone they differ in proportions, and chance within a kind is low.

Dimensions: n images, e joint width.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from vlmlab.errors import unknown
from vlmlab.studies.directions.encoded import encoded_pixels
from vlmlab.world.painter import render
from vlmlab.world.palette import COLOURS, STUFF
from vlmlab.world.scene import TEXTURES, Scene, SceneObject

DIFFER = ("everything", "shape")
"""Individuals of a kind differ in proportions, colour and texture; or in proportions alone."""
KINDS = ("cat", "house", "car", "fish", "chair", "guitar", "cup", "tree")


@dataclasses.dataclass(frozen=True)
class Album:
    """Images uint8 [n, S, S, 3] with who [n] and which kind [n] they show."""

    pixels: np.ndarray
    who: Tensor
    kind: Tensor


def album(individuals: int = 40, draws: int = 8, differ: str = "everything", seed: int = 0) -> Album:
    """So many images of so many individuals, who are spread over KINDS.

    Raises `VlmlabError` for a way to differ that is not in DIFFER.
    """
    if differ not in DIFFER:
        raise unknown("way to differ", differ, DIFFER)
    rng = np.random.default_rng([11, seed])
    pixels, who, kind = [], [], []
    for i in range(individuals):
        k = i % len(KINDS)
        look = (
            (str(rng.choice(list(COLOURS))), str(rng.choice(TEXTURES))) if differ == "everything" else ("blue", "plain")
        )
        own, aspect = int(rng.integers(1 << 31)), float(np.exp(rng.uniform(-0.17, 0.17)))
        for _ in range(draws):
            x, y, radius = rng.uniform(0.4, 0.6), rng.uniform(0.4, 0.6), rng.uniform(0.28, 0.4)
            turn, flip = float(rng.normal(0, 12)), bool(rng.random() < 0.5)
            one = SceneObject(KINDS[k], *look, x, y, radius, turn, aspect, flip, own)
            ground = str(rng.choice(STUFF))
            pixels.append(render(Scene("photo", ground, (one,), int(rng.integers(1 << 31)))).pixels)
            who.append(i)
            kind.append(k)
    return Album(np.stack(pixels), torch.tensor(who), torch.tensor(kind))


def features(found: Album) -> Tensor:
    """Unit features [n, e] of micro-vit."""
    return encoded_pixels(found.pixels)


def ranked(f: Tensor, found: Album) -> dict[str, float]:
    """ "rank-1", "mean AP" and "kind" (the nearest image shows the same kind), in percent."""
    scores = f @ f.T
    scores.fill_diagonal_(-torch.inf)  # nobody finds the query itself
    order = scores.argsort(1, descending=True)[:, :-1]  # [n, n - 1]
    hit = (found.who[order] == found.who[:, None]).float()
    precision = hit.cumsum(1) / torch.arange(1, order.shape[1] + 1)
    average = (precision * hit).sum(1) / hit.sum(1).clamp_min(1)
    same = (found.kind[order[:, 0]] == found.kind).float()
    return {
        "rank-1": 100 * float(hit[:, 0].mean()),
        "mean AP": 100 * float(average.mean()),
        "kind": 100 * float(same.mean()),
    }


def chance(found: Album) -> float:
    """Rank-1 (%) of who knows the kind and guesses among its images."""
    same_kind = (found.kind[:, None] == found.kind[None]).sum(1) - 1
    same_one = (found.who[:, None] == found.who[None]).sum(1) - 1
    return 100 * float((same_one / same_kind).mean())


def learned(f: Tensor, found: Album, ridge: float = 0.05) -> Tensor:
    """A linear map [e, e] that makes draws of one individual alike: whitening of the differences within individuals.

    With C = mean of (f - mean of its individual)(...)^T over images [n, e] of *other* individuals than those it is judged on,
    the map is (C + ridge tr(C)/e I)^(-1/2): directions in which one individual varies count for little.
    """
    means = torch.stack([f[found.who == i].mean(0) for i in found.who.unique()])
    inside = f - means[torch.unique(found.who, return_inverse=True)[1]]
    covariance = inside.T @ inside / len(f)
    covariance = covariance + ridge * covariance.trace() / len(covariance) * torch.eye(len(covariance))
    values, vectors = torch.linalg.eigh(covariance)
    return vectors @ torch.diag(values.rsqrt()) @ vectors.T
