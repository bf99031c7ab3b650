"""Convolution by lowering to columns and one matrix product."""
