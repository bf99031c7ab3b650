"""Descriptions of whole networks: `summarize` makes a table of the layers."""

from fastconv.nets.summary import LayerSummary, Summary, summarize

__all__ = ["LayerSummary", "Summary", "summarize"]
