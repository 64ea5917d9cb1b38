"""Searching the recipe that is best for given models: ranges instead of values, an objective, a budget."""
