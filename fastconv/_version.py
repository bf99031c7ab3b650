"""The version of fastconv, which follows semantic versioning. CHANGELOG.md lists the changes of each version."""

__version__ = "0.1.0"
