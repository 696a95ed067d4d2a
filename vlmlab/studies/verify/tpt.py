"""TPT: views of low entropy are right more often: a signal that needs no label (arXiv 2209.07511)."""

from __future__ import annotations

import torch

from vlmlab.studies.experiment import Experiment
from vlmlab.studies.run import adapt
from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import BACKBONE

claim = "the tenth of the views with the lowest entropy is right more often than all; one step lowers the entropy"

PICTURES, SHARE = 150, 0.1


@torch.no_grad()
def _measure() -> dict[str, float]:
    from vlmlab.features.decoding import name_seed
    from vlmlab.methods.text_prompt.tpt import averaged_entropy, confident

    adapted = adapt(Experiment("tpt", "objects-mosaic", BACKBONE, shots=0, seed=1))
    method, test = adapted.method, adapted.task.test
    chosen = list(range(0, len(test), max(1, len(test) // PICTURES)))[:PICTURES]
    every, low, before, after = [], [], [], []
    for i in chosen:
        views = method.views([test.images(i)], [name_seed(test.ids[i], 1)])
        f = torch.nn.functional.normalize(method.backbone.encode_image(views[0]), dim=-1)[None]  # [1, V, e]
        logits = method.scores(f, method.start[None])  # [1, V, C]
        label = test.labels[i]
        kept = confident(logits[0], SHARE)
        right = (logits[0].argmax(-1) == label).float()
        every.append(right.mean())
        low.append(right[kept].mean())
        tuned = method.scores(f, method.tune(f))
        before.append(averaged_entropy(logits[0][kept]))
        after.append(averaged_entropy(tuned[0][kept]))
    return {
        "all_views_right": round(100 * float(torch.stack(every).mean()), 2),
        "confident_views_right": round(100 * float(torch.stack(low).mean()), 2),
        "entropy_before": round(float(torch.stack(before).mean()), 4),
        "entropy_after": round(float(torch.stack(after).mean()), 4),
        "pictures": len(chosen),
    }


def measure() -> Verdict:
    """150 images of objects-mosaic; holds if both parts of the claim do."""
    m = _measure()
    holds = m["confident_views_right"] > m["all_views_right"] and m["entropy_after"] < m["entropy_before"]
    return Verdict("tpt", claim, m, holds)
