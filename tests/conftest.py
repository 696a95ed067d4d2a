"""What holds for all tests."""

from collections import Counter

from hypothesis import settings

# A test must not fail because the machine was busy with something else: pytest-timeout ends what hangs.
settings.register_profile("vlmlab", deadline=None)
settings.load_profile("vlmlab")


def pytest_collection_modifyitems(items):
    """Files with slow tests come first, then those with many tests.

    `make test` hands whole files to its workers in this order (`--dist loadfile --no-loadscope-reorder`), so that no worker
    is left with a slow file when the others have nothing more to do.
    """
    files = Counter(item.path for item in items)
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: (not slow[item.path], -files[item.path]))
