"""SuS-X: images found by name gain over names alone, the more the nearer they are to the task's (arXiv 2211.16198)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import results

claim = (
    "a support set drawn from names alone gains over zero-shot; less where it is drawn in another style than the task's"
)
NEAR, FAR = ("textures", "aerial"), ("objects-sketch",)
SEEDS = (1, 2)
COUNTS = (1, 4, 16)


def measure() -> Verdict:
    """Drawn: 1, 4 and 16 images per name (the seed draws others), two seeds. Near: the task's images are drawn as
    the support is; far: they are sketches, the support is not. Retrieved from the unlabelled training
    images, 16 per name, for comparison. Holds if the gain near is positive, grows from 1 to 16, and is larger than far."""

    def gain(names: tuple[str, ...], source: str, count: int) -> float:
        rows = [row for n in names for row in results("sus_x", n, 0, seeds=SEEDS, source=source, count=count)]
        return round(sum(r["metrics"]["accuracy"] - r["zero_shot"]["accuracy"] for r in rows) / len(rows), 2)

    near = [gain(NEAR, "drawn", count) for count in COUNTS]
    far = [gain(FAR, "drawn", count) for count in COUNTS]
    measured = {f"near_drawn_{count}": g for count, g in zip(COUNTS, near, strict=True)}
    measured |= {f"far_drawn_{count}": g for count, g in zip(COUNTS, far, strict=True)}
    measured |= {"near_retrieved_16": gain(NEAR, "retrieved", 16), "far_retrieved_16": gain(FAR, "retrieved", 16)}
    return Verdict("sus_x", claim, measured, near[-1] > 0 and near[-1] > near[0] and near[-1] > far[-1])
