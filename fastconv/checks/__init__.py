"""Checks of the arrays and options that callers pass; errors state the value that was given and the legal ones."""
