"""Activations, and reductions of whole planes."""
