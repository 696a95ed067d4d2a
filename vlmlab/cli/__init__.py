"""The command line. `vlmlab --help` says what there is; with `--json` a command prints one JSON value.

Nothing heavy is imported before a command needs it: listings answer at once. Results go to standard output, whatever
else is said (progress, warnings, what libraries print) to standard error. Exit codes: 0 done; 1 done, but a claim does
not hold or an experiment failed; 2 a mistake that the user can mend, told in one line; 130 ended by Ctrl-C.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["EXTRAS", "app", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        from vlmlab.cli import entry

        return entry.main(arguments)
    except KeyboardInterrupt:  # while it is imported, or once more while it ends
        print("vlmlab: stopped", file=sys.stderr)
        return 130


def __getattr__(name: str):
    if name not in ("EXTRAS", "app"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vlmlab.cli import entry

    return getattr(entry, name)
