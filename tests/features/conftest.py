"""The same small backbone and images as in tests/learning."""

from tests.learning.conftest import backbone, own_cache, task  # noqa: F401
