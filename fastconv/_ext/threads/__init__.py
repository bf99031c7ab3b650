"""The thread pool, whose workers join a call without the GIL."""
