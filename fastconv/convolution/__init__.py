"""The algorithms that compute convolutions, and the choice of the cheapest algorithm.

From a call to the kernels::

    layers                     a call: arrays and options are checked
      |
    dispatch.plan_for          finds the plan of a call in the plan cache, or makes it:
      |        |
      |      choose            takes the cheapest plan of the algorithms that support the case
      |        |                 registry: the list of algorithms
      |        |                 cost/: the work of a plan x measured rates = seconds
      |        |
      +-- wrappers             compose: Flipped, Batched, Padded, Guarded, Masked, ...
               |
    Algorithm.plan(case)       lays out the work once: blocks, tables, workspace
               |
    Plan.run(arrays)           runs the kernels on each call

The types::

    Case (plan)                op, geometry, dtype, threads, instruction set, density, masked; a frozen value
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
