"""Several languages: how much French does an English CLIP need?

No image takes part. Pairs of sentences that say the same, drawn from a small grammar, teach a copy of the text tower to give
a French sentence the feature that the frozen tower gives its English one, and to keep English as it was (AltCLIP,
arXiv 2211.06679, does this at scale):

    L = share |n(T'(english)) - n(T(english))|^2 + (1 - share) |n(T'(french)) - n(T(english))|^2       means over the batch

Some names are held out: no pair has them. Accuracy is measured on images of objects among all 54 names at once.

Dimensions: N sentences, L tokens, d text width, e joint width.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab.backbones.backbone import Backbone
from vlmlab.errors import VlmlabError
from vlmlab.studies.directions.encoded import accuracy, encoded
from vlmlab.studies.run import shared_bank
from vlmlab.world.captions import PAIRS, with_article

FRENCH: dict[str, tuple[str, str]] = {
    "fish": ("poisson", "m"), "bird": ("oiseau", "m"), "butterfly": ("papillon", "m"), "snail": ("escargot", "m"),
    "cat": ("chat", "m"), "crab": ("crabe", "m"), "elephant": ("éléphant", "m"), "tree": ("arbre", "m"),
    "flower": ("fleur", "f"), "mushroom": ("champignon", "m"), "apple": ("pomme", "f"), "banana": ("banane", "f"),
    "cherry": ("cerise", "f"), "pizza": ("pizza", "f"), "donut": ("beignet", "m"), "ice cream": ("glace", "f"),
    "car": ("voiture", "f"), "bus": ("autobus", "m"), "boat": ("bateau", "m"), "plane": ("avion", "m"),
    "rocket": ("fusée", "f"), "balloon": ("ballon", "m"), "house": ("maison", "f"), "castle": ("château", "m"),
    "windmill": ("moulin", "m"), "key": ("clé", "f"), "hammer": ("marteau", "m"), "umbrella": ("parapluie", "m"),
    "scissors": ("ciseaux", "mp"), "cup": ("tasse", "f"), "bottle": ("bouteille", "f"), "clock": ("horloge", "f"),
    "table": ("table", "f"), "hat": ("chapeau", "m"), "shirt": ("chemise", "f"), "glasses": ("lunettes", "fp"),
    "guitar": ("guitare", "f"), "drum": ("tambour", "m"), "book": ("livre", "m"), "candle": ("bougie", "f"),
    "flag": ("drapeau", "m"), "star": ("étoile", "f"), "heart": ("coeur", "m"), "arrow": ("flèche", "f"),
    "sun": ("soleil", "m"), "moon": ("lune", "f"), "cloud": ("nuage", "m"), "rabbit": ("lapin", "m"),
    "cactus": ("cactus", "m"), "bicycle": ("vélo", "m"), "train": ("train", "m"), "chair": ("chaise", "f"),
    "crown": ("couronne", "f"), "bell": ("cloche", "f"),
}  # fmt: skip
"""Name of an object -> noun, and m or f with a p for what is plural."""
COLOURS: dict[str, tuple[str, str, str, str]] = {
    "red": ("rouge", "rouge", "rouges", "rouges"), "orange": ("orange",) * 4, "yellow": ("jaune", "jaune", "jaunes", "jaunes"),
    "green": ("vert", "verte", "verts", "vertes"), "blue": ("bleu", "bleue", "bleus", "bleues"),
    "purple": ("violet", "violette", "violets", "violettes"), "pink": ("rose", "rose", "roses", "roses"),
    "grey": ("gris", "grise", "gris", "grises"),
}  # fmt: skip
"""Masculine, feminine, and both in the plural: in French a colour agrees with its noun, and follows it."""
PLACES = {
    "in the sky": "dans le ciel", "on grass": "sur l'herbe", "on sand": "sur le sable", "on water": "sur l'eau",
    "on snow": "sur la neige", "on wood": "sur du bois",
}  # fmt: skip
OPENINGS = {"a photo of": "une photo", "a picture of": "une image", "a drawing of": "un dessin", "": ""}
HELD_OUT = (
    "butterfly", "elephant", "tree", "apple", "boat", "house", "cup", "guitar", "star", "moon", "chair",
)  # fmt: skip
"""Names that no pair has, unless one says otherwise."""
_FORMS = ("m", "f", "mp", "fp")

Encode = Callable[[Sequence[str]], Tensor]
"""Sentences -> unit features [N, e]."""


def sentence(name: str, colour: str = "", place: str = "", opening: str = "") -> tuple[str, str]:
    """(English, French) of one thing.

    Raises `VlmlabError` for a name that the dictionary does not have.
    """
    if name not in FRENCH:
        raise VlmlabError(f"the dictionary has no '{name}'; add it to FRENCH with its gender")
    noun, form = FRENCH[name]
    english = f"{colour} {name}".strip()
    english = english if name in PAIRS else with_article(english)
    plural = form.endswith("p")
    article = "des" if plural else {"m": "un", "f": "une"}[form]
    if opening:
        article = "de" if plural else f"d'{article}"  # une photo d'un chat, une photo de ciseaux
    hue = COLOURS[colour][_FORMS.index(form)] if colour else ""
    french = [OPENINGS[opening], article, noun, hue, PLACES[place] if place else ""]
    return " ".join(filter(None, (opening, english, place))), " ".join(filter(None, french))


def pairs(count: int, held_out: Sequence[str] = HELD_OUT, seed: int = 0) -> list[tuple[str, str]]:
    """So many (English, French) pairs without the names held out; half have a colour, three in ten a place."""
    rng = np.random.default_rng([3, seed])
    known = [name for name in FRENCH if name not in held_out]
    drawn = []
    for _ in range(count):
        colour, place, opening = (str(rng.choice(list(d))) for d in (COLOURS, PLACES, OPENINGS))
        said = (colour if rng.random() < 0.5 else "", place if rng.random() < 0.3 else "", opening)
        drawn.append(sentence(str(rng.choice(known)), *said))
    return drawn


@dataclasses.dataclass
class Learned:
    """A text tower that has learned: `encode` gives features, `losses` [steps], `parameters` that learned."""

    encode: Encode
    losses: list[float]
    parameters: int


def frozen() -> Encode:
    """The text tower as it was pretrained."""
    return _encoder(shared_bank("micro-vit").backbone)


def _encoder(backbone: Backbone) -> Encode:
    @torch.no_grad()
    def encode(sentences: Sequence[str]) -> Tensor:
        return F.normalize(backbone.encode_text(list(sentences)).float(), dim=-1)

    return encode


def learn(
    given: Sequence[tuple[str, str]],
    steps: int = 50,
    batch: int = 32,
    english: float = 0.3,
    lr: float = 2e-3,
    blocks: bool = True,
    seed: int = 0,
) -> Learned:
    """A copy of the text tower that has learned the pairs.

    Args:
        given: (English, French) pairs, each met as often as steps and batch allow.
        english: weight of keeping English as it was, 0 to 1.
        blocks: whether the Transformer learns too, or only the vectors of the tokens in the pairs.
    """
    teacher, student = frozen(), copy.deepcopy(shared_bank("micro-vit").backbone)
    tower = student.text
    tokens = [tower.tokenize(side) for side in zip(*given, strict=True)]  # English, French: each [n, context]
    targets = teacher([one for one, _ in given])  # [n, e]
    used, place = torch.cat(tokens).unique(return_inverse=True)
    places = place.split(len(given))
    rows = nn.Parameter(tower.words.weight.detach()[used].clone())  # of the tokens that occur; the others stay
    inside = [p for p in (*tower.blocks.parameters(), *tower.text.ln_final.parameters())] if blocks else []
    for parameter in student.parameters():
        parameter.requires_grad_(False)
    for parameter in inside:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW([rows, *inside], lr=lr, weight_decay=0.0)
    generator, losses = torch.Generator().manual_seed(seed), []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / 10) * (1 - step / steps)
        index = torch.randint(len(given), (batch,), generator=generator)
        target, loss = targets[index], torch.zeros(())
        for ids, at, weight in zip(tokens, places, (english, 1 - english), strict=True):
            if weight:
                end = tower.end_of_text(ids[index])
                length = int(end.max()) + 1
                f = F.normalize(tower.forward(rows[at[index, :length]], end), dim=-1)
                loss = loss + weight * (f - target).square().sum(-1).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        tower.words.weight[used] = rows
    return Learned(_encoder(student), losses, sum(p.numel() for p in (rows, *inside)))


def measured(encode: Encode, held_out: Sequence[str] = HELD_OUT, dataset: str = "objects") -> dict[str, float]:
    """Accuracy (%) on images of objects by name: "english", and "french" of names in the pairs and "held out" of them."""
    one = encoded(dataset)
    openings = [opening for opening in OPENINGS if opening]
    said = [[sentence(name, opening=opening) for opening in openings] for name in one.classes]
    both = []
    for side in range(2):
        flat = encode([pair[side] for own in said for pair in own])
        both.append(F.normalize(flat.view(len(said), len(openings), -1).mean(1), dim=-1))
    out = torch.tensor([one.classes[label] in held_out for label in one.labels.tolist()])
    english, french = (one.features @ words.T for words in both)
    return {
        "english": accuracy(english, one.labels),
        "french": accuracy(french[~out], one.labels[~out]),
        "held out": accuracy(french[out], one.labels[out]),
    }


@functools.lru_cache(4)
def taught(count: int, steps: int = 50, english: float = 0.3, blocks: bool = True, seed: int = 0) -> Learned:
    """The tower that so many pairs make; the same one is made once."""
    return learn(pairs(count, seed=seed), steps, english=english, blocks=blocks, seed=seed)


@functools.lru_cache(32)
def run(
    count: int, steps: int = 50, english: float = 0.3, blocks: bool = True, seed: int = 0
) -> tuple[dict[str, float], list[float]]:
    """What `measured` says after so many pairs, and the losses; the same run is made once. No pairs is the frozen tower."""
    if not count:
        return measured(frozen()), []
    found = taught(count, steps, english, blocks, seed)
    return measured(found.encode), found.losses
