"""Instruction sets, vectors of each instruction set, and the peak rate of this CPU."""
