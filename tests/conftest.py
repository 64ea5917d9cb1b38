"""Settings of the whole test run."""

from hypothesis import settings

from support.browser import browser

__all__ = ["browser"]

# Time limits of single examples fail on a busy machine and say nothing about the code.
settings.register_profile("rlmerge", deadline=None)
settings.load_profile("rlmerge")
