"""vlmlab: an executable survey of vision-language models for vision tasks (arXiv 2304.00685, sections 6 to 9)."""

__version__ = "0.1.0"
