"""Scoring models on tasks with one right answer."""
