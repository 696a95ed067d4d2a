"""Zero-shot prediction is strong where pretraining spoke of the classes and near chance where it did not."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import results

claim = "zero-shot accuracy spreads over datasets: far above chance near pretraining, near chance far from it"

NEAR, FAR = ("objects", "vehicles", "food"), ("digits", "aerial")
CHANCE = {"objects": 100 / 54, "vehicles": 100 / 12, "food": 10.0, "digits": 10.0, "aerial": 10.0}


def measure() -> Verdict:
    """Holds if every near dataset is five times above chance and above every far one."""
    accuracy = {d: results("zero_shot", d, shots=0, seeds=(0,))[0]["metrics"]["accuracy"] for d in (*NEAR, *FAR)}
    holds = all(accuracy[d] >= 5 * CHANCE[d] for d in NEAR)
    holds = holds and min(accuracy[d] for d in NEAR) > max(accuracy[d] for d in FAR)
    return Verdict("zero_shot", claim, {d: round(a, 2) for d, a in accuracy.items()}, holds)
