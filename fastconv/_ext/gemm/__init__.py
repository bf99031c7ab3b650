"""The microkernels of matrix products, and implicit GEMM."""
