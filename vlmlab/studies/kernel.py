"""The kernel in which notebooks are executed: the Python that runs vlmlab, whatever kernels Jupyter finds.

Jupyter looks for a kernel "python3" in many folders; one that another program left there may belong to a Python that has no
vlmlab, or has none at all any more.
"""

from __future__ import annotations

import sys

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager


class OwnKernel(AsyncKernelManager):
    """Starts ipykernel with `sys.executable`; no kernelspec is looked for."""

    @property
    def kernel_spec(self) -> KernelSpec:
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name="Python 3", language="python")
