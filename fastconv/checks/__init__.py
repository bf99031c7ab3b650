"""Checks of the arrays and options that callers pass. Errors state the given value and the legal values."""
