"""How much memory a piece of work needed at most."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType

import psutil
import torch

from vlmlab.heap import return_freed_memory

_LINUX_STATUS, _LINUX_RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Context manager; afterwards `peak_mb` is the largest memory of the process within the block, in MiB.

    It is the resident memory of the whole process, libraries and backbone included (what the machine must have), plus
    the GPU's where one is used. Linux can restart its high-water mark, so there the figure belongs to the block; other
    systems only tell the mark since the process began.
    """

    peak_mb: float = 0.0

    def __enter__(self) -> PeakMemory:
        return_freed_memory()  # what earlier work left free is not this block's
        try:
            _LINUX_RESET.write_text("5")
        except OSError:
            pass  # not Linux, or a sandbox that forbids it: the mark then dates from the start of the process
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        gpu = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else 0.0
        self.peak_mb = round(resident_peak_mb() + gpu, 1)


def resident_peak_mb() -> float:
    """High-water mark of this process' resident memory in MiB."""
    if _LINUX_STATUS.exists():
        lines = dict(line.split(":", 1) for line in _LINUX_STATUS.read_text().splitlines() if ":" in line)
        if "VmHWM" in lines:
            return int(lines["VmHWM"].split()[0]) / 1024
    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):  # Windows
        return memory.peak_wset / 2**20
    import resource  # not on Windows

    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
