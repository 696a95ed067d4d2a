"""The command line. `vlmlab --help` says what there is; with `--json` a command prints one JSON value.

Nothing heavy is imported before a command needs it: listings answer at once. Results go to standard output, whatever
else is said (progress, warnings, what libraries print) to standard error. Exit codes: 0 done; 1 done, but a claim does
not hold or an experiment failed; 2 a mistake that the user can mend, told in one line.
"""

from vlmlab.cli.entry import EXTRAS, app, main

__all__ = ["EXTRAS", "app", "main"]
