"""`python -m vlmlab.book.website OUT` builds the site."""

import sys
from pathlib import Path

from vlmlab.book.website.build import build
from vlmlab.errors import VlmlabError

if __name__ == "__main__":
    try:
        build(Path(sys.argv[1] if len(sys.argv) > 1 else "site"))
    except VlmlabError as error:
        sys.exit(f"vlmlab: {error}")
