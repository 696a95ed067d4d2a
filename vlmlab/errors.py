"""The one error that a reader of vlmlab is meant to see.

Everything that a user can get wrong (an unknown name, too many shots, a broken image, a full disk) ends in a
`VlmlabError` whose text is a single line: what is wrong, then what to do. The command line prints that line and exits
with code 2; a notebook shows it in place. Anything else that is raised is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", list: "a list"}
"""Types as messages name them."""


class VlmlabError(Exception):
    """A mistake that the user can mend; `str(error)` is one line that says what is wrong and what to do."""


class ForeignCheckpoint(VlmlabError):
    """A checkpoint from which this run cannot go on: it belongs to another one, or is damaged."""


def unknown(kind: str, name: str, known: Iterable[str]) -> VlmlabError:
    """The error for a `name` that is not among the `known` names of that `kind`, with the closest ones."""
    known = sorted(known)
    originals = {k.lower().replace("-", "_"): k for k in known}
    close = difflib.get_close_matches(name.lower().replace("-", "_"), list(originals), n=3, cutoff=0.5)
    if close:
        hint = "did you mean " + " or ".join(originals[c] for c in close) + "?"
    else:
        hint = "known are " + ", ".join(known)
    return VlmlabError(f"unknown {kind} '{name}'; {hint}")
