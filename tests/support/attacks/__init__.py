"""Generators of hostile input, each a function of a random number generator, for tests/attacks and bench/attack.py."""
