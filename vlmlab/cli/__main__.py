"""`python -m vlmlab.cli` is `vlmlab`."""

import sys

from vlmlab.cli import main

if __name__ == "__main__":
    sys.exit(main())
