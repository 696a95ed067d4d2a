"""PLOT's plan keeps the prompts of a class apart (arXiv 2210.01253, section 3.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from vlmlab.studies.experiment import Experiment
from vlmlab.studies.run import construct
from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import BACKBONE

claim = "learned with the transport plan, the prompts of a class stay less alike than with an even plan"


def _alike(even: bool, seed: int) -> float:
    """Mean cosine between different prompts of a class after learning; `even`: every place counts the same for all."""
    ready = construct(Experiment("plot", "vehicles", BACKBONE, 8, seed))
    method = ready.method
    if even:
        method.plan = lambda s: torch.full_like(s, 1 / (s.shape[-1] * s.shape[-2]))
    ready.learn()
    with torch.no_grad():
        t = F.normalize(method.prompt_features(), dim=-1)  # [N, C, e]
        cosines = torch.einsum("nce,mce->cnm", t, t)
    count = len(t)
    return float((cosines.sum((1, 2)) - count).mean() / (count * (count - 1)))


def measure() -> Verdict:
    """vehicles, 8 shots, two seeds; holds if the mean cosine is lower with the plan."""
    plan, even = (sum(_alike(e, seed) for seed in (1, 2)) / 2 for e in (False, True))
    return Verdict("plot", claim, {"cosine_with_plan": round(plan, 4), "cosine_with_even": round(even, 4)}, plan < even)
