"""Tokens, keys and claims as pure functions and values: no I/O, no clock, no randomness of its own."""
