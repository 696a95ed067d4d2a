"""A store of labelled features that is asked for neighbours: what retrieval-enhanced systems share.

The keys are unit features of images from the frozen encoder, so they never go stale; the values are their labels. A query
gets its k nearest keys, each with a weight, and the weights of a class add up to a probability: a kernel-weighted vote of
the neighbours, which can be interpolated with what a classifier says (kNN-LM, arXiv:1911.00172; for images
Tip-Adapter, arXiv:2207.09519, and RePrompt, arXiv:2306.02243).

Dimensions: N stored images, B queries, k neighbours, C classes, e joint width.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmlab.errors import VlmlabError


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """What a store answers: index [B, k] of the keys, the nearest first; weights [B, k], which sum to one."""

    index: Tensor
    weights: Tensor


class Store:
    """Labelled unit features, kept to be found again.

    keys [N, e]; labels [N]; classes C.
    """

    def __init__(self, features: Tensor, labels: Tensor, classes: int):
        """`features` [N, e] are normalised here; raises `VlmlabError` if there are none."""
        if not len(features):
            raise VlmlabError("a store of images needs at least one; ask for at least one shot")
        self.keys = F.normalize(features, dim=-1)
        self.labels = labels.to(self.keys.device)
        self.classes = classes

    def nearest(self, queries: Tensor, k: int, sharpness: float, own: Tensor | None = None) -> Neighbours:
        """The k nearest keys of unit queries [B, e] by cosine, fewer if there are fewer; weights are softmax(sharpness cos).

        `own` [B] names the key that each query is itself: it is left out, because an image that finds itself in training
        learns to read off its own label.
        """
        cosines = queries @ self.keys.T  # [B, N]
        room = len(self.keys)
        if own is not None:
            room -= 1
            if not room:
                raise VlmlabError("a store of one image has no neighbour for it; ask for more shots")
            cosines = cosines.scatter(1, own.to(cosines.device)[:, None], float("-inf"))
        found, index = cosines.topk(min(k, room), dim=-1)
        return Neighbours(index, (sharpness * found).softmax(-1))

    def probabilities(self, neighbours: Neighbours) -> Tensor:
        """p(c) = the weight of the neighbours of class c, [B, C]."""
        votes = neighbours.weights.new_zeros(len(neighbours.index), self.classes)
        return votes.scatter_add(1, self.labels[neighbours.index], neighbours.weights)

    def mean(self, neighbours: Neighbours, values: Tensor) -> Tensor:
        """Weighted mean [B, v] of the neighbours' rows of `values` [N, v]."""
        return torch.einsum("bk,bkv->bv", neighbours.weights, values[neighbours.index])


def interpolated(logits: Tensor, votes: Tensor, share: float) -> Tensor:
    """log(share votes + (1 - share) softmax(logits)), [B, C]: logits whose softmax is the interpolated probability.

    A share of 0 gives the logits themselves up to a constant per row.
    """
    own = logits.log_softmax(-1)
    if not share:
        return own
    tiny = torch.finfo(own.dtype).tiny  # a class without any neighbour, at a share of one
    return torch.logaddexp(own + torch.tensor(1 - share).log(), (share * votes).clamp_min(tiny).log())
