"""Under load and faults. `make torture` runs the long form (VLMLAB_TORTURE=1); otherwise a short one that takes seconds."""

import os

LONG = os.environ.get("VLMLAB_TORTURE") == "1"
