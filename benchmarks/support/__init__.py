"""Modules that several benchmarks use: cases, peers, timing, reports."""
