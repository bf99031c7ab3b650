"""Adapters to third-party packages. There is one module for each package, and no other module imports the package."""

from fastconv.adapters.threadpoolctl import register_threadpoolctl

__all__ = ["register_threadpoolctl"]
