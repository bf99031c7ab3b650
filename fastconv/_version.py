"""The version, in the one place it is written (semantic versioning; see CHANGELOG.md)."""

__version__ = "0.1.0"
