"""Models that are read where they are: in object stores, on web servers, on the Hub. Nothing of the weights is copied.

A model directory is mirrored without its weights (``mirror``); each weights file is a ``RemoteFile`` that reads ranges
of one edition (``file``) through the requests that all of them share (``link``) from a store (``object_store``,
``hub_store``).
"""

from rlmerge.addresses import addressed
from rlmerge.checkpoint.remote.mirror import Mirror, mirrored, mirrored_together, opened_remotely

__all__ = ["Mirror", "addressed", "mirrored", "mirrored_together", "opened_remotely"]
