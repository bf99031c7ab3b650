"""Checks of arrays and options that callers hand in; TypeError and ValueError say what came and what is legal."""
