"""The algorithms that compute convolutions, and the choice of the cheapest algorithm.

The steps from a call of a layer to the compiled code::

    layers                     check the arrays and options of a call
      |
    dispatch.plan_for          finds the plan of the call in the plan cache, or makes it
      |        |
      |      choose            takes the cheapest plan among the algorithms that support the call
      |        |                 registry: the list of algorithms
      |        |                 cost/: estimates the seconds of a plan
      |        |
      +-- wrappers             add what an algorithm does not support: Flipped, Padded, Masked, ...
               |
    Algorithm.plan(case)       computes block sizes, tables and the size of the workspace, once
               |
    Plan.run(arrays)           runs the compiled code on each call

The main types::

    Case (plan)                what to compute: op, geometry, dtype, threads, instruction set, density, masked
      |
    Algorithm (base)           name, unsupported(case), plan(case)
      |-- Reference            reference: a loop over taps in float64
      |-- Im2col               im2col/: columns and a matrix product by BLAS
      |-- Implicit             implicit_gemm/: a matrix product without columns
      |-- Winograd             winograd/: minimal filtering
      |-- Depthwise            depthwise: groups of few channels
      |-- Fft                  fft/: products of spectra
      |-- Separable            separable/: kernels of rank one, one axis after the other
      |-- Sparse               sparse/: products of nonzero weights
      `-- Toeplitz             toeplitz/: a sparse matrix times images
      |
    Plan (plan)                properties, workspace_bytes, work, run(first, second, third, result)
      |-- one or more classes for each algorithm
      `-- Wrapper, Batched, Phases, ... (wrappers)

A new algorithm is one module or folder, and one line of `registry`.
"""
