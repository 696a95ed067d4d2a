"""A plugin of pytest for the chapters under nbval: those that take longest are begun first.

`make test` hands whole chapters to its workers in the order in which they are collected (`--dist loadfile
--no-loadscope-reorder`). Who begins a long one last lets the other worker wait for it.
"""

SECONDS = {
    "06_1b": 163, "06_1d": 157, "06_1c": 152, "06_2": 141, "06_1": 139, "06_3": 136, "06_4": 127, "06_1a": 124,
    "09_1": 102, "06_5": 104, "07_2a": 97, "07_2b": 88, "06_0": 87, "07_1a": 76, "07_1": 66, "07_1b": 66, "07_3": 58,
    "07_2c": 55, "09_2": 52, "00": 50, "07_1c": 41, "07_2": 40, "09_3": 36, "07_4": 27, "07_0": 22, "06_6": 21,
}  # fmt: skip
"""What a chapter takes of one processor (`vlmlab book`), roughly; one that is not here is begun last."""


def pytest_collection_modifyitems(items):
    """Cells stay in their order."""
    items.sort(
        key=lambda item: -max((s for begin, s in SECONDS.items() if item.path.name.startswith(f"{begin}_")), default=0)
    )
