"""TaskRes moves most what zero-shot knows least, and keeps what prompts distort (arXiv 2211.10277, figures 1 and 4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor

from vlmlab.learning.evaluate import evaluate
from vlmlab.registry import load_system
from vlmlab.studies.experiment import Experiment
from vlmlab.studies.run import adapt
from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import BACKBONE, SEEDS, over_seeds, results

claim = (
    "16 shots gain over zero-shot, residuals are longer, relative to the text, where zero-shot is wrong more often, and the "
    "similarities between classes stay nearer to those of the texts than CoOp's do"
)
MOVED, KEPT = "objects-v2", "textures"


def measure() -> Verdict:
    """Gain and rank correlation over the classes on objects-v2; on textures the correlation of the similarities between
    class vectors with those of zero-shot prediction, for TaskRes and for CoOp. Three seeds; holds if all three parts do
    in the mean."""
    rows = results("taskres", MOVED)
    own, zero = over_seeds(rows)[0], over_seeds(rows, of="zero_shot")[0]
    ranks: list[float] = []
    kept: dict[str, list[float]] = {"taskres": [], "coop": []}
    for seed in SEEDS:
        adapted = adapt(Experiment("taskres", MOVED, BACKBONE, 16, seed))
        method = adapted.method
        relative = method.config.alpha * method.residual.norm(dim=-1) / method.base.norm(dim=-1)
        baseline = load_system("zero_shot")(adapted.bank.backbone)
        baseline.prepare(adapted.task)
        right = evaluate(baseline, adapted.task.test, adapted.bank)["per_class"]
        wrong = [100 - right[name] for name in adapted.task.classes]
        ranks.append(float(spearmanr(relative.detach().numpy(), wrong).statistic))

        run = adapt(Experiment("taskres", KEPT, BACKBONE, 16, seed)).method
        coop = adapt(Experiment("coop", KEPT, BACKBONE, 16, seed)).method
        with torch.no_grad():
            kept["taskres"].append(likeness(run.base, run.base + run.config.alpha * run.residual))
            kept["coop"].append(likeness(run.base, coop.class_features()))
    rho, stays, moves = (round(sum(values) / len(values), 3) for values in (ranks, kept["taskres"], kept["coop"]))
    measured = {"accuracy": own, "zero_shot": zero, "rank_correlation": rho, "kept": stays, "kept_by_coop": moves}
    return Verdict("taskres", claim, measured, own > zero and rho > 0 and stays > moves)


def likeness(before: Tensor, after: Tensor) -> float:
    """Correlation of the cosines between the rows of `before` [C, e] with those between the rows of `after` [C, e]."""
    pairs = torch.triu_indices(len(before), len(before), 1)
    cosines = [(v @ v.T)[pairs[0], pairs[1]] for v in (F.normalize(before, dim=-1), F.normalize(after, dim=-1))]
    return float(torch.corrcoef(torch.stack(cosines))[0, 1])
