"""TaskRes moves most the classes that zero-shot prediction knows least (arXiv 2211.10277, figure 4)."""

from __future__ import annotations

from scipy.stats import spearmanr

from vlmlab.learning.evaluate import evaluate
from vlmlab.registry import load_system
from vlmlab.studies.experiment import Experiment
from vlmlab.studies.run import adapt
from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import BACKBONE, SEEDS, over_seeds, results

claim = (
    "16 shots gain over zero-shot, and residuals are longer, relative to the text, where zero-shot is wrong more often"
)


def measure() -> Verdict:
    """objects-v2, three seeds; holds if the gain and the mean rank correlation over the classes are positive."""
    rows = results("taskres", "objects-v2")
    own, zero = over_seeds(rows)[0], over_seeds(rows, of="zero_shot")[0]
    correlations = []
    for seed in SEEDS:
        adapted = adapt(Experiment("taskres", "objects-v2", BACKBONE, 16, seed))
        method = adapted.method
        relative = method.config.alpha * method.residual.norm(dim=-1) / method.base.norm(dim=-1)
        baseline = load_system("zero_shot")(adapted.bank.backbone)
        baseline.prepare(adapted.task)
        right = evaluate(baseline, adapted.task.test, adapted.bank)["per_class"]
        wrong = [100 - right[name] for name in adapted.task.classes]
        correlations.append(float(spearmanr(relative.detach().numpy(), wrong).statistic))
    rho = sum(correlations) / len(correlations)
    measured = {"accuracy": own, "zero_shot": zero, "rank_correlation": round(rho, 3)}
    return Verdict("taskres", claim, measured, own > zero and rho > 0)
