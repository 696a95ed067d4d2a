"""For whoever writes a system: toy CLIPs and tasks to try it on, and the contract that every system must keep."""

from vlmlab.testing.contract import cases, checks

__all__ = ["cases", "checks"]
