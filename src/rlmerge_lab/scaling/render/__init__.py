"""Outcomes on a terminal, as files, and as one HTML page."""
