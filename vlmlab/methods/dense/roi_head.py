"""Heads that read a region: from its features to an embedding, and from the embedding to names.

Dimensions: R regions, F features of a region, e joint width, C classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RegionHead(nn.Module):
    """Two layers and a projection: [..., F] -> [..., e], not normalised. Dropout before and behind the layers, if any."""

    def __init__(self, features: int, width: int, hidden: int = 256, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        self.project = nn.Linear(hidden, width)
        self.dropout = dropout

    def hidden(self, features: Tensor, learning: bool = False) -> Tensor:
        """[..., hidden], what the projection reads."""
        hidden = self.layers(F.dropout(features, self.dropout, learning))
        return F.dropout(hidden, self.dropout, learning)

    def forward(self, features: Tensor, learning: bool = False) -> Tensor:
        return self.project(self.hidden(features, learning))


class TextClassifier(nn.Module):
    """logits = scale * [cos(z, t_1), ..., cos(z, t_C), cos(z, b)]: frozen words, and a learned vector b for background.

    Background comes last (ViLD's release has it first).
    """

    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.background = nn.Parameter(0.01 * torch.randn(width))

    def forward(self, embeddings: Tensor, text: Tensor) -> Tensor:
        """[..., C + 1] of embeddings [..., e] and unit words [C, e]."""
        words = torch.cat([text, F.normalize(self.background, dim=0)[None]])
        return self.scale * F.normalize(embeddings, dim=-1) @ words.T
