"""What the benchmarks share: cases, peers, timing, reports."""
