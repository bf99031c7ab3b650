"""Everything that competes for a convolution.

`base` and `plan` have the contract, `choose` the registry and the choice, `dispatch` the way in. `wrappers`
are plans made of plans, which serve every algorithm. Each algorithm has a module or a folder.
"""
