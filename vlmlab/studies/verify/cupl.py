"""CuPL is strongest where names say little: on categories that pretraining never named (arXiv 2209.03320)."""

from __future__ import annotations

from vlmlab.studies.verify import Verdict
from vlmlab.studies.verify._measure import gain

claim = "sentences of a language model gain over the name in templates, most where pretraining never saw the names"


def measure() -> Verdict:
    """objects (known names) and objects-unnamed; nothing is drawn at random; holds if the gain there is positive and larger."""
    _, known = gain("cupl", "objects", shots=0, seeds=(1,))
    own, unnamed = gain("cupl", "objects-unnamed", shots=0, seeds=(1,))
    measured = {"unnamed": own, "unnamed_gain": unnamed, "known_gain": known}
    return Verdict("cupl", claim, measured, unnamed > 0 and unnamed > known)
