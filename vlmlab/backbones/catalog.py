"""The backbones that have a name of their own, as a table that costs nothing to read (no torch)."""

from __future__ import annotations

import json
from dataclasses import dataclass

from vlmlab.errors import VlmlabError, unknown
from vlmlab.files import data_path


@dataclass(frozen=True)
class BackboneInfo:
    """One backbone: its towers in words, the joint width, the side of its images, its size on disk, and whether it
    needs no download."""

    name: str
    image_tower: str
    text_tower: str
    embed_dim: int
    image_size: int
    megabytes: float
    offline: bool


BACKBONES: tuple[BackboneInfo, ...] = (
    BackboneInfo("micro-vit", "ViT, 6 layers, width 128, patch 8", "CLIP, 4 layers, width 128", 128, 64, 17, True),
    BackboneInfo("micro-vit-fine", "ViT, 6 layers, width 128, patch 8", "that of micro-vit", 128, 128, 17, True),
    BackboneInfo("micro-rn", "ModifiedResNet with attention pool", "that of micro-vit", 128, 128, 17, True),
    BackboneInfo("photo", "EfficientNet-Lite0 (ImageNet)", "MiniLM, 6 layers, width 384", 1280, 224, 113, True),
    BackboneInfo("ViT-B-32/openai", "ViT, 12 layers, width 768, patch 32", "CLIP, 12 layers", 512, 224, 606, False),
    BackboneInfo("ViT-B-16/openai", "ViT, 12 layers, width 768, patch 16", "CLIP, 12 layers", 512, 224, 599, False),
    BackboneInfo(
        "ViT-B-16-SigLIP2/webli", "ViT of timm, 12 layers, attention pool", "SigLIP 2, 12 layers", 768, 224, 1501, False
    ),
    BackboneInfo("RN50/openai", "ModifiedResNet-50 with attention pool", "CLIP, 12 layers", 1024, 224, 408, False),
)
"""Those used most; any other ARCH/TAG of open_clip and any ARCH@CHECKPOINT can be named too."""


def manifest() -> dict[str, dict]:
    """The embedded micro backbones that are there: name -> {"config", "weights", "sha256"}.

    Raises `VlmlabError` if data/backbones/manifest.json is damaged.
    """
    if not data_path("backbones", "manifest.json").is_file():
        return {}
    found = _read("manifest.json")
    for entry in found.values():
        entry = _object(entry, "config", "weights", "sha256")
        _object(entry["sha256"])
    return found


def check_backbone(name: str) -> None:
    """Raises `VlmlabError` if `name` is no backbone of the lists and has not the form of another one's."""
    known = dict.fromkeys([*manifest(), *(info.name for info in BACKBONES)])
    if name not in known and "/" not in name and "@" not in name:
        raise unknown("backbone", name, known)


def photo_manifest() -> dict:
    """What data/backbones/photo.json says of the backbone photo: {"weights", "sha256", ...}; `VlmlabError` if damaged."""
    return _object(_read("photo.json"), "weights", "sha256", "sigma", "logit_scale", file="photo.json")


def _read(file: str) -> dict:
    try:
        content = json.loads(data_path("backbones", file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(file) from error
    return _object(content, file=file)


def _object(content: object, *keys: str, file: str = "manifest.json") -> dict:
    """`content`, which must be a JSON object with these keys."""
    if not isinstance(content, dict) or not set(keys) <= set(content):
        raise _damaged(file)
    return content


def _damaged(file: str) -> VlmlabError:
    path = data_path("backbones", file)
    return VlmlabError(
        f"{path} is missing or damaged; get the repository's data/ again, or name a copy with VLMLAB_DATA"
    )
