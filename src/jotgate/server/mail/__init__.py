"""Mail to people: what it says, the ways it travels, and the courier who empties the outbox.

It knows neither database, settings nor requests: the outbox, the key that unseals and the clock are arguments.
"""
