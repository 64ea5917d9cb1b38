"""A calibration in a terminal and as a page."""
