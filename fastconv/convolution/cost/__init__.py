"""The cost model, which estimates how many seconds a plan takes.

`counts` counts the work of a plan, for example its multiply-adds. `model` multiplies this work by measured `rates`, in
nanoseconds. `correction` multiplies the estimate by a factor that depends on the sizes of the layer. `pricing` computes
the cost of a plan from the corrected estimate.
"""
