"""One module for each third party, the only one that imports it."""

from fastconv.adapters.threadpoolctl import register_threadpoolctl

__all__ = ["register_threadpoolctl"]
