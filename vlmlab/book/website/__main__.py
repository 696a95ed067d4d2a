"""`python -m vlmlab.book.website OUT` builds the site; with `--reference`, the docstrings, too (some five minutes of the processor)."""

import sys
from pathlib import Path

from vlmlab.book.website.build import build
from vlmlab.errors import VlmlabError

if __name__ == "__main__":
    try:
        folders = [given for given in sys.argv[1:] if given != "--reference"]
        build(Path(folders[0] if folders else "site"), reference="--reference" in sys.argv)
    except VlmlabError as error:
        sys.exit(f"vlmlab: {error}")
