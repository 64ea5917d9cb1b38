"""Harnesses that are programs of their own: starting them, and reading the JSON that they write."""
