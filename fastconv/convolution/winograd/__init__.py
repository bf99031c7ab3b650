"""Minimal filtering, F(m, r) of Winograd and of Toom and Cook."""
