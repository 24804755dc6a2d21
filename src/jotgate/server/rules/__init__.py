"""Pure decisions: values in, values out.

Rules know no clock, randomness, file, network or database; the time is an argument.
"""
