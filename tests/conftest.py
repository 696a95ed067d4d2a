"""What holds for all tests."""

from hypothesis import settings

# A test must not fail because the machine was busy with something else: pytest-timeout ends what hangs.
settings.register_profile("vlmlab", deadline=None)
settings.load_profile("vlmlab")
