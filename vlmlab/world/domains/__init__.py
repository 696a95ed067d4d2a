"""The specialised image domains of MicroWorld, which mirror the data sets on which the field adapts CLIP."""

from __future__ import annotations

from vlmlab.world.domain import Domain
from vlmlab.world.domains.actions import ACTIONS
from vlmlab.world.domains.aerial import AERIAL
from vlmlab.world.domains.creatures import CREATURES
from vlmlab.world.domains.flowers import FLOWERS
from vlmlab.world.domains.food import FOOD
from vlmlab.world.domains.scenes import SCENES
from vlmlab.world.domains.textures import TEXTURES
from vlmlab.world.domains.vehicles import VEHICLES

DOMAINS: dict[str, Domain] = {
    domain.name: domain for domain in (CREATURES, FLOWERS, VEHICLES, FOOD, TEXTURES, AERIAL, SCENES, ACTIONS)
}

__all__ = ["DOMAINS"]
