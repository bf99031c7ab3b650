"""Adapters to third-party packages: one module for each, the only one that imports the package."""

from fastconv.adapters.threadpoolctl import register_threadpoolctl

__all__ = ["register_threadpoolctl"]
