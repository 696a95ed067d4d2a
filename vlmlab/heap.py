"""What becomes of memory that tensors free on a CPU.

Linux's C library (glibc) returns a large block to the system as soon as it is freed, so that the next one is fetched, page
by page, and filled with zeros. A step of a large image tower frees and fetches gigabytes in this way; what that costs is
measured by `vlmlab bench freed_memory`.
"""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # parameters of mallopt, as glibc's malloc.h numbers them
KEPT = 512 * 2**20  # bytes that may lie free before they are returned


def keep_freed_memory() -> bool:
    """Have the process reuse freed blocks, up to `KEPT` bytes of them; whether the C library can do that."""
    mallopt = getattr(_library(), "mallopt", None)
    return bool(mallopt and mallopt(MMAP_MAX, 0) and mallopt(TRIM_THRESHOLD, KEPT))


def return_freed_memory() -> None:
    """Give all free memory back to the system now, for instance before the memory of some work is measured."""
    if trim := getattr(_library(), "malloc_trim", None):
        trim(0)


def _library() -> ctypes.CDLL | None:
    """The C library of this process, or None where it is not a kind that has these functions."""
    return ctypes.CDLL(None) if sys.platform == "linux" else None
