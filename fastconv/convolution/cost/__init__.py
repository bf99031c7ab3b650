"""The cost model, which estimates the seconds of a plan.

`counts` counts the work of a plan. `model` multiplies the work by the measured `rates`. `correction` corrects the
estimate by a factor that depends on the sizes of the case. `pricing` computes the cost of a plan from the corrected
estimate.
"""
