"""Whole networks: a description of their layers, summarised as a table."""

from fastconv.nets.summary import LayerSummary, Summary, summarize

__all__ = ["LayerSummary", "Summary", "summarize"]
