"""What a system needs of its backbone, and the one refusal of a backbone that does not offer it.

A system declares its needs in `@register(needs=...)`; where they depend on its settings, it overrides `Method.needs`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from vlmlab.backbones.image_tower import WITH_TOKENS
from vlmlab.errors import VlmlabError

if TYPE_CHECKING:
    from vlmlab.backbones.backbone import Backbone


@dataclasses.dataclass(frozen=True)
class Need:
    """Whether a backbone has it, and what is said if not: a sentence about {name}, its image tower's {kind}, and {system}."""

    offered: Callable[[Backbone], bool]
    refusal: str
    instead: str = WITH_TOKENS


NEEDS: dict[str, Need] = {
    "text tokens": Need(
        lambda backbone: backbone.text.takes_prompts,
        "the text tower of {name} takes no learned prompts, which {system} needs",
        "micro-vit, or a CLIP such as ViT-B-32/openai",
    ),
    "text blocks": Need(
        lambda backbone: backbone.text.plain,
        "the text tower of {name} is not CLIP's transformer, whose blocks {system} needs",
    ),
    "image tokens": Need(
        lambda backbone: "tokens" in backbone.image.supports,
        "{name} ({kind}) has no prompt tokens; the visual prompts of {system} need a ViT",
    ),
    "image blocks": Need(
        lambda backbone: backbone.image.kind == "vit", "{name} ({kind}) has no attention blocks; {system} needs a ViT"
    ),
    "local features": Need(
        lambda backbone: "local" in backbone.image.supports,
        "{name} ({kind}) has no features of places, which {system} needs",
    ),
    "a ViT or ResNet image tower": Need(
        lambda backbone: backbone.image.kind in ("vit", "resnet"),
        "{name} ({kind}) has none of the maps of a ViT or of CLIP's ResNet, which {system} needs",
        "micro-vit, micro-rn or ViT-B-16/openai",
    ),
}
"""What a row of the taxonomy may name under `needs`."""


def lacking(needs: Iterable[str], backbone: Backbone) -> list[str]:
    """Those needs that the backbone does not meet."""
    return [need for need in needs if not NEEDS[need].offered(backbone)]


def refuse_backbone(system, config, backbone: Backbone) -> None:
    """Raises `VlmlabError` if the backbone lacks what `system` (a class) needs with these settings; says a way out.

    A way out is another backbone, or another choice of one setting with which this backbone would do.
    """
    missing = lacking(system.needs(config), backbone)
    if not missing:
        return
    need = NEEDS[missing[0]]
    ways = [
        f"{field.name}={choice}"
        for field in dataclasses.fields(config)
        for choice in field.metadata.get("choices", ())
        if not lacking(system.needs(dataclasses.replace(config, **{field.name: choice})), backbone)
    ]
    said = need.refusal.format(name=backbone.name, kind=backbone.image.kind, system=system.info.name)
    raise VlmlabError(f"{said}: use {need.instead}" + "".join(f", or --set {way}" for way in ways[:1]))
