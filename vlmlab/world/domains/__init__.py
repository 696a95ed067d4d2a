"""The specialised picture domains of MicroWorld, which mirror the data sets on which the field adapts CLIP."""

from __future__ import annotations

from vlmlab.world.domain import Domain
from vlmlab.world.domains.vehicles import VEHICLES

DOMAINS: dict[str, Domain] = {domain.name: domain for domain in (VEHICLES,)}

__all__ = ["DOMAINS"]
