"""A real browser where there is one."""

from support.browser import browser

__all__ = ["browser"]
