"""How people write a list: with commas or line breaks between its entries, the same in panels and on the command line."""

from __future__ import annotations

import re

# A separator that is followed by an even number of double quotes stands outside of them. Commas of Chinese and Japanese, too.
_SEPARATOR = re.compile(r'[,\uff0c\u3001\n](?=(?:[^"]*"[^"]*")*[^"]*$)')


def entries(text: str) -> list[str]:
    """The entries of a list, 'a, "b, c"' -> ["a", "b, c"]: what stands in double quotes is one; empty ones stay."""
    found = []
    for part in _SEPARATOR.split(text):
        entry = part.strip()
        quoted = len(entry) > 1 and entry[0] == entry[-1] == '"'
        found.append(entry[1:-1].strip() if quoted else entry)
    return found
