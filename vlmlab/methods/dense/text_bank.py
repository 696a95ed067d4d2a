"""The words of a detector: one unit row per class.

Dimensions: C classes, K templates, N sentences, e joint width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmlab.errors import VlmlabError

AT_ONCE = 256  # sentences


def text_bank(backbone, classes: Sequence[str], templates: Sequence[str]) -> Tensor:
    """[C, e]: t_c = n( mean_k n( f(template_k(c)) ) ). Raises `VlmlabError` without a class or a template."""
    if not classes or not templates:
        raise VlmlabError("a detector needs at least one class name and one template")
    return backbone.class_embeddings(classes, templates)


@torch.no_grad()
def sentence_bank(backbone, sentences: Sequence[str]) -> Tensor:
    """[N, e]: the unit embedding of each sentence."""
    parts = [backbone.encode_text(sentences[i : i + AT_ONCE]) for i in range(0, len(sentences), AT_ONCE)]
    return F.normalize(torch.cat(parts).float(), dim=-1)
