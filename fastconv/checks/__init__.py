"""Checks of the arrays and options that callers pass. Error messages state the given value and the legal values."""
