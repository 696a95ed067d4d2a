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
# Dense prediction adds sentences that place the object in a scene (MaskCLIP, arXiv:2112.01071).
SETS["scene85"] = SETS["imagenet80"] + [f"{sentence} in the scene." for sentence in IN_A_SCENE]

NAMES = f"dataset, {', '.join(SETS)}, or a sentence with {{}} for the class name"
HELP = f"templates: {NAMES}"


def choose(name: str, own: Sequence[str]) -> list[str]:
    """The templates that a setting names: the dataset's `own`, a set, or the one sentence that it is itself.

    Raises `VlmlabError` for what is neither a set nor a sentence with `{}`.
    """
    if name == "dataset":
        return list(own)
    if name in SETS:
        return SETS[name]
    if "{}" not in name:
        raise VlmlabError(f"templates '{name}' is no set; give {NAMES}")
    return [name]


def spoken(classes: Sequence[str]) -> list[str]:
    """Class names as one says them: folders write spaces as underscores."""
    return [name.replace("_", " ") for name in classes]
