"""Sentences around a class name. Zero-shot prediction lives by them: a published number belongs to its set."""

from __future__ import annotations

from collections.abc import Sequence

from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES

from vlmlab.errors import VlmlabError

IN_A_SCENE = ["there is a {}", "there is the {}", "this is a {}", "this is the {}", "this is one {}"]

SETS: dict[str, list[str]] = {
    "photo": ["a photo of a {}."],
    "name": ["{}"],
    # CLIP (arXiv:2103.00020, section 3.1.4) came with 80 sentences for ImageNet and a subset of seven.
    "imagenet7": [template("{}") for template in SIMPLE_IMAGENET_TEMPLATES],
    "imagenet80": [template("{}") for template in OPENAI_IMAGENET_TEMPLATES],
}
# PromptSRC's teacher (arXiv:2307.06948) reads the first sixty of the eighty.
SETS["imagenet60"] = SETS["imagenet80"][:60]
# Dense prediction adds sentences that place the object in a scene (MaskCLIP, arXiv:2112.01071).
SETS["scene85"] = SETS["imagenet80"] + [f"{sentence} in the scene." for sentence in IN_A_SCENE]
# CLIPSeg (arXiv:2112.10003) draws one of these for every phrase.
SETS["clipseg9"] = [
    "a photo of a {}.", "a photograph of a {}.", "an image of a {}.", "{}.", "a cropped photo of a {}.", "a good photo of a {}.",
    "a photo of one {}.", "a bad photo of a {}.", "a photo of the {}.",
]  # fmt: skip
# ZegFormer (arXiv:2112.07910) learns with the seven and this one, and its CLIP reads 32, some of which say that it is masked.
SETS["imagenet7scene"] = SETS["imagenet7"] + ["A photo of a {} in the scene"]
_SIZES = ("", "small ", "medium ", "large ")
SETS["masked32"] = [
    "a bad photo of the {}.", "a photo of the large {}.", "a photo of the small {}.", "a cropped photo of a {}.",
    *(f"This is a {kind}photo of a {size}{{}}" for kind in ("", "masked ", "cropped ") for size in _SIZES),
    "A photo of a {} in the scene", "a bad photo of the {} in the scene", "a photo of the large {} in the scene",
    "a photo of the small {} in the scene", "a cropped photo of a {} in the scene", "a photo of a masked {} in the scene",
    *(f"{sentence} in the scene" for sentence in ("There is a {}", "There is the {}", "This is a {}", "This is the {}")),
    "This is one {} in the scene",
    *(f"{sentence} in the scene" for sentence in ("There is a masked {}", "There is the masked {}", "This is a masked {}")),
    "This is the masked {} in the scene", "This is one masked {} in the scene",
]  # fmt: skip
# ViLD's fourteen, as ZSSeg and OVSeg (arXiv:2210.04150) have them.
SETS["vild14"] = [
    "a photo of a {}.", "This is a photo of a {}", "There is a {} in the scene", "There is the {} in the scene",
    "a photo of a {} in the scene", *(f"a photo of a {size}{{}}." for size in _SIZES[1:]),
    *(f"This is a photo of a {size}{{}}." for size in _SIZES[1:]), *(f"There is a {size}{{}} in the scene." for size in _SIZES[1:]),
]  # fmt: skip
# LASP (arXiv:2210.01115) reads sentences that CoOp's authors wrote for single datasets, the seven, and some of the 80.
# "a bad photo of the {}." comes twice, as in its release.
FOR_ONE_DATASET = [
    "a photo of a {}, a type of flower.", "a photo of a person doing {}.", "a centered satellite photo of {}.",
    "a photo of a {}, a type of aircraft.", "{} texture.",
]  # fmt: skip
OF_THE_80 = (39, 1, 3, 4, 5, 7, 8, 24, 26, 27, 32, 33, 34, 38, 45, 47, 48, 49, 53, 58, 59, 60, 61)
SETS["lasp35"] = FOR_ONE_DATASET + SETS["imagenet7"] + [SETS["imagenet80"][i] for i in OF_THE_80]

NAMES = f"dataset, {', '.join(SETS)}, several of these joined by +, or a sentence with {{}} for the class name"
HELP = f"templates: {NAMES}"


def choose(name: str, own: Sequence[str]) -> list[str]:
    """The templates that a setting names: the dataset's `own`, a set, several of these joined by "+", or the one sentence
    that it is itself.

    Raises `VlmlabError` for what is neither a set nor a sentence with `{}`.
    """
    if name.count("{}") > 1:
        raise VlmlabError(f"the sentence '{name}' has more than one place for the class name; keep one {{}}")
    if "{}" in name:
        return [name]
    sets = SETS | {"dataset": list(own)}
    if unknown := [part for part in name.split("+") if part not in sets]:
        raise VlmlabError(f"templates '{unknown[0]}' is no set; give {NAMES}")
    return [sentence for part in name.split("+") for sentence in sets[part]]


def spoken(classes: Sequence[str]) -> list[str]:
    """Class names as one says them: folders write spaces as underscores."""
    return [name.replace("_", " ") for name in classes]
