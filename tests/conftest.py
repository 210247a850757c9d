"""What every test shares: property tests that take the time they need and draw the same examples each run."""

from hypothesis import settings

settings.register_profile("kingmaker", deadline=None, derandomize=True)
settings.load_profile("kingmaker")
