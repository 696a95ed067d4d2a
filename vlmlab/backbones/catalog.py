"""The backbones that have a name of their own, as a table that costs nothing to read (no torch)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BackboneInfo:
    """One backbone: its towers in words, the joint width, the side of its pictures, its size on disk, and whether it
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
    BackboneInfo("RN50/openai", "ModifiedResNet-50 with attention pool", "CLIP, 12 layers", 1024, 224, 408, False),
)
"""Those used most; any other ARCH/TAG of open_clip and any ARCH@CHECKPOINT can be named too."""
