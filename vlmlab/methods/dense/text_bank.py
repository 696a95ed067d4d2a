"""The words of a detector: one unit row per class.

Dimensions: C classes, K templates, e joint width.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vlmlab.errors import VlmlabError


def text_bank(backbone, classes: Sequence[str], templates: Sequence[str]) -> Tensor:
    """[C, e]: t_c = n( mean_k n( f(template_k(c)) ) ). Raises `VlmlabError` without a class or a template."""
    if not classes or not templates:
        raise VlmlabError("a detector needs at least one class name and one template")
    return backbone.class_embeddings(classes, templates)
