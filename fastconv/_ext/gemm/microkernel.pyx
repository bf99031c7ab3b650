"""The instruction sets of this CPU, and the kernels of matrix products.

Only this module is linked with the kernels of matrix products. Other modules get them from `microkernel_for`, so that
the package has each kernel once. `dtype` is 0 (float32) or 1 (float64).
"""

cdef extern from "gemm/microkernel.h" nogil:
    int FC_ISAS
    const char** fc_isa_names
    int fc_isa_usable(int isa)
    int fc_isa_compiled(int isa)
    const fc_microkernel_kernels* fc_microkernel_for(int dtype, int isa)

cdef extern from "simd/cpu.h" nogil:
    enum:
        FC_VENDOR
    int fc_cpu(char* vendor) noexcept


cdef const fc_microkernel_kernels* microkernel_for(int dtype, int isa) noexcept nogil:
    return fc_microkernel_for(dtype, isa)


#: The names of the instruction sets. The index of a name is the number of the instruction set.
isas = tuple([(<bytes> fc_isa_names[i]).decode() for i in range(FC_ISAS)])


def usable(int isa):
    """Return whether kernels were compiled for an instruction set and this CPU supports it."""
    return bool(fc_isa_usable(isa))


def compiled(int isa):
    """Return whether kernels were compiled for an instruction set."""
    return bool(fc_isa_compiled(isa))


def cpu():
    """Return the vendor and family of this CPU from cpuid, or 'generic' and 0 if there is no cpuid."""
    cdef char vendor[FC_VENDOR + 1]
    cdef int family = fc_cpu(vendor)
    return (<bytes> vendor).decode("ascii", "replace"), family


def shape(int dtype, int isa):
    """Return the largest numbers of rows and of vectors of a tile, and the number of lanes of a vector."""
    cdef Kernels kernel = kernels(dtype, isa)
    return kernel.rows, kernel.vectors, kernel.lanes
