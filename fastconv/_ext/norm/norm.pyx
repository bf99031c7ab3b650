"""Batch, layer and group normalisation, forward and backward, on several threads.

Images have the shape (N, C, S), with S elements per channel. The numbers that share one mean and one variance, such as
a channel of all images, are one work item. A thread reads these numbers twice, the second time from the cache if they
fit. Means, variances, gamma and beta of channels are doubles. `queue` is the shared state of the call, which
distributes the work items among threads: see threads/team.h.
"""

from libc.math cimport sqrt

from fastconv._ext.buffers.arrays cimport Buffer, contiguous_buffer
from fastconv._ext.threads.team cimport (
    fc_new_worker, fc_next_chunk, fc_parallel_for, fc_stopped, fc_work_queue, fc_worker, work_queue,
)


cdef extern from "norm/norm.h" nogil:
    enum:
        FC_COLUMNS

    ctypedef struct fc_norm_groups:
        Py_ssize_t runs
        Py_ssize_t n
        Py_ssize_t run_pitch
        Py_ssize_t count
        Py_ssize_t group_pitch
        Py_ssize_t shared_mean

    ctypedef void (*fc_moments_t)(const void* x, fc_norm_groups groups, double* mean, double* variance) noexcept nogil
    ctypedef void (*fc_scale_t)(const void* x, void* y, fc_norm_groups groups, const double* mean, const double* scale,
                                const double* gamma, const double* beta) noexcept nogil
    ctypedef void (*fc_scale_row_t)(const void* x, const void* gamma, const void* beta, void* y, Py_ssize_t n,
                                    double mean, double factor) noexcept nogil
    ctypedef void (*fc_products_t)(const void* dout, const void* x, fc_norm_groups groups, const double* mean,
                                   const double* scale, double* sums) noexcept nogil
    ctypedef void (*fc_products_row_t)(const void* dout, const void* x, const void* gamma, Py_ssize_t n,
                                       double mean, double* sums) noexcept nogil
    ctypedef void (*fc_combine_t)(const void* dout, const void* x, void* dx, fc_norm_groups groups, const double* mean,
                                  const double* scale, const double* gamma, const double* of_x,
                                  const double* shift) noexcept nogil
    ctypedef void (*fc_combine_row_t)(const void* dout, const void* x, const void* gamma, void* dx, Py_ssize_t n,
                                      double mean, double of_dout, double of_x, double shift) noexcept nogil
    ctypedef void (*fc_column_moments_t)(const void* x, fc_norm_groups groups, double* mean,
                                         double* variance) noexcept nogil
    ctypedef void (*fc_column_scale_t)(const void* x, void* y, fc_norm_groups groups, const double* mean,
                                       const double* factor,
                                       const double* shift) noexcept nogil
    ctypedef void (*fc_column_products_t)(const void* dout, const void* x, fc_norm_groups groups, const double* mean,
                                          const double* factor, Py_ssize_t of_a_row, double* sums) noexcept nogil
    ctypedef void (*fc_column_combine_t)(const void* dout, const void* x, void* dx, fc_norm_groups groups,
                                         const double* mean,
                                         const double* of_dout, const double* of_x,
                                         const double* shift) noexcept nogil

    ctypedef struct fc_norm_kernels:
        fc_moments_t moments
        fc_scale_t scale
        fc_scale_row_t scale_row
        fc_products_t products
        fc_products_row_t products_row
        fc_combine_t combine
        fc_combine_row_t combine_row
        fc_column_moments_t column_moments
        fc_column_scale_t column_scale
        fc_column_products_t column_products
        fc_column_combine_t column_combine

    const fc_norm_kernels* fc_norm_for(int dtype, int isa)


cdef enum:
    BATCH_ELEMENTS = 2048    # The largest number of elements of neighbouring channels that are processed together.
    POLL_ELEMENTS = 1 << 20  # The number of elements that one pass reads in about a millisecond.

COLUMNS = FC_COLUMNS


# The arguments of a call, which all threads of the call read.
cdef struct Norm:
    const fc_norm_kernels* kernels
    bint train
    Py_ssize_t itemsize
    const char* x
    const char* dout
    char* to
    const double* gamma
    const double* beta
    const char* gammas  # gamma in the dtype of x, for group normalisation with S = 1; otherwise NULL
    const char* betas   # beta in the dtype of x, for group normalisation with S = 1; otherwise NULL
    double* mean
    double* variance    # the variance, for `batch_forward`; otherwise NULL
    double* scale       # 1 / sqrt(variance + eps)
    double* sums        # (C, 2): the sum of dout and the sum of dout * (x - mean) * scale of each channel
    double eps
    Py_ssize_t N
    Py_ssize_t C
    Py_ssize_t S
    Py_ssize_t G
    fc_work_queue* queue


cdef inline void* buffer_of_size(str name, array, Py_ssize_t n, Py_ssize_t itemsize, bint writable) except? NULL:
    """Return the address of an aligned array of n elements.

    Raise an error that contains `name` if the array is not aligned or does not have n elements. The array may be from
    the tuple `cache` of the forward pass, which the user may have changed.
    """
    cdef Buffer run = contiguous_buffer(array, itemsize, writable)
    if run.n != n:
        raise ValueError(f"{name} has {run.n} elements, but the layer needs {n}")
    if <size_t> run.at % <size_t> itemsize:
        raise ValueError(f"{name} must be aligned to its itemsize of {itemsize} bytes")
    return run.at


cdef Norm begin_call(int dtype, x, dout, to, mean, scale, bint grouped, sizes, int isa, queue) except *:
    """Return a `Norm` with the arguments that all functions share. In a forward pass, dout is None. If only sums are
    computed, `to` is None.

    If `grouped` is set, there is one mean and one scale for each group of each image. Otherwise, there is one mean and
    one scale for each channel.
    """
    cdef Norm q
    cdef Py_ssize_t n_means
    cdef Buffer inputs, results, gradients
    q.itemsize = 8 if dtype else 4
    inputs = contiguous_buffer(x, q.itemsize, False)
    results = inputs if to is None else contiguous_buffer(to, q.itemsize, True)
    gradients = inputs if dout is None else contiguous_buffer(dout, q.itemsize, False)
    q.N, q.C, q.S, q.G = sizes.N, sizes.C, sizes.S, sizes.G
    n_means = q.N * q.G if grouped else q.C
    q.kernels, q.train = fc_norm_for(dtype, isa), True
    q.x, q.dout, q.to = <const char*> inputs.at, <const char*> gradients.at, <char*> results.at
    q.mean = <double*> buffer_of_size("mean", mean, n_means, 8, True)
    q.scale = <double*> buffer_of_size("scale", scale, n_means, 8, True)
    q.variance = NULL
    q.gamma = q.beta = NULL
    q.gammas = q.betas = NULL
    q.sums, q.eps = NULL, 0
    q.queue = work_queue(queue)
    if q.G < 1 or q.C % q.G:
        raise ValueError(f"{q.C} channels cannot be divided into {q.G} groups of equal size")
    if inputs.n != q.N * q.C * q.S or results.n != inputs.n or gradients.n != inputs.n:
        raise ValueError(
            f"x, dout and the result have {inputs.n}, {gradients.n} and {results.n} elements, but the layer needs "
            f"{q.N * q.C * q.S}"
        )
    if (<size_t> inputs.at | <size_t> gradients.at) % <size_t> q.itemsize:
        raise ValueError(f"x and dout must be aligned to their itemsize of {q.itemsize} bytes")
    return q


def has_negative(numbers):
    """Return whether an element of an array of doubles is below 0.

    NumPy is not used, because a call of NumPy would take as long as a small layer.
    """
    cdef Buffer run = contiguous_buffer(numbers, 8, False)
    cdef const double* each = <const double*> run.at
    cdef Py_ssize_t i
    for i in range(run.n):
        if each[i] < 0:
            return True
    return False


def batch_forward(int dtype, x, y, gamma, beta, mean, variance, scale, sizes, double eps, bint train, int isa, queue):
    """Compute y = (x - mean) * scale * gamma + beta with scale = 1 / sqrt(variance + eps). If `train` is set, mean and
    variance are computed from x; otherwise they are inputs.

    x and y are of `dtype`, 0 (float32) or 1 (float64). `sizes` has the attributes N, C, S and G = 1. Each of the other
    arrays has C doubles. A work item is one channel or, if S is 1, COLUMNS channels.
    """
    cdef Norm q = begin_call(dtype, x, None, y, mean, scale, False, sizes, isa, queue)
    q.variance = <double*> buffer_of_size("variance", variance, q.C, 8, True)
    q.gamma = <const double*> buffer_of_size("gamma", gamma, q.C, 8, False)
    q.beta = <const double*> buffer_of_size("beta", beta, q.C, 8, False)
    q.eps, q.train = eps, train
    with nogil:
        fc_parallel_for(q.queue, batch_columns_worker if q.S == 1 else batch_worker, &q)


cdef inline Py_ssize_t channels_at_a_time(const Norm* q) noexcept nogil:
    """Return the number of channels that one kernel call processes. The number is above 1 for small channels, because
    this saves kernel calls. It is limited, because these channels must stay in the cache between two passes.
    """
    cdef Py_ssize_t count = min(BATCH_ELEMENTS // (q.N * q.S), <Py_ssize_t> FC_COLUMNS)
    # Use a multiple of eight, because the kernels process eight short channels at once.
    return count // 8 * 8 if count >= 8 else max(count, <Py_ssize_t> 1)


cdef inline bint stopped(const Norm* q, Py_ssize_t cells) noexcept nogil:
    """Check for signals, and return whether the call has to stop. For a work item of fewer than POLL_ELEMENTS elements,
    return False without a check.
    """
    return cells >= POLL_ELEMENTS and fc_stopped(q.queue)


cdef inline Py_ssize_t rows_at_a_time(Py_ssize_t count, Py_ssize_t n) noexcept nogil:
    """Return the number of rows, out of `count` rows of n elements, to process between two checks for signals."""
    return count if count * n < POLL_ELEMENTS else max(POLL_ELEMENTS // n, <Py_ssize_t> 1)


cdef void batch_worker(void* task) noexcept nogil:
    cdef const Norm* q = <const Norm*> task
    cdef fc_worker worker = fc_new_worker(q.queue)
    cdef Py_ssize_t begin = fc_next_chunk(q.queue, &worker, q.C), end, c, j, n, at, here, most = channels_at_a_time(q)
    cdef fc_norm_groups channels = fc_norm_groups(q.N, q.S, q.C * q.S, 0, q.S, False)
    while begin < q.C:
        c, end = begin, min(begin + q.queue.grain, q.C)
        while c < end:
            at, channels.count = c * q.S * q.itemsize, min(most, end - c)
            if q.train:
                q.kernels.moments(q.x + at, channels, q.mean + c, q.variance + c)
            for j in range(c, c + channels.count):
                q.scale[j] = 1 / sqrt(q.variance[j] + q.eps)
            n = 0
            while n < q.N:
                if stopped(q, q.N * q.S):
                    return
                here, channels.runs = at + n * q.C * q.S * q.itemsize, min(rows_at_a_time(q.N, q.S), q.N - n)
                q.kernels.scale(q.x + here, q.to + here, channels, q.mean + c, q.scale + c, q.gamma + c,
                                q.beta + c)
                n += channels.runs
            channels.runs = q.N
            c += most
        begin = fc_next_chunk(q.queue, &worker, q.C)


cdef void batch_columns_worker(void* task) noexcept nogil:
    cdef const Norm* q = <const Norm*> task
    cdef fc_worker worker = fc_new_worker(q.queue)
    cdef Py_ssize_t blocks = (q.C + FC_COLUMNS - 1) // FC_COLUMNS, block = fc_next_chunk(q.queue, &worker, blocks), end
    cdef Py_ssize_t c, j
    cdef double[FC_COLUMNS] factor
    cdef fc_norm_groups columns = fc_norm_groups(q.N, 0, q.C, 1, 0, False)
    while block < blocks:
        end = min(block + q.queue.grain, blocks)
        while block < end:
            c = block * FC_COLUMNS
            columns.n = min(<Py_ssize_t> FC_COLUMNS, q.C - c)
            if q.train:
                q.kernels.column_moments(q.x + c * q.itemsize, columns, q.mean + c, q.variance + c)
            for j in range(columns.n):
                q.scale[c + j] = 1 / sqrt(q.variance[c + j] + q.eps)
                factor[j] = q.gamma[c + j] * q.scale[c + j]
            q.kernels.column_scale(q.x + c * q.itemsize, q.to + c * q.itemsize, columns, q.mean + c,
                                   factor, q.beta + c)
            block += 1
        block = fc_next_chunk(q.queue, &worker, blocks)


def batch_backward(int dtype, dout, x, dx, gamma, mean, scale, sums, sizes, bint train, int isa, queue):
    """Compute dx and `sums` (C, 2). The columns of `sums` are dbeta and dgamma.

    `scale` is from `batch_forward`. If `train` is not set, mean and variance are constants, so they have no gradient.
    """
    cdef Norm q = begin_call(dtype, x, dout, dx, mean, scale, False, sizes, isa, queue)
    q.gamma, q.train = <const double*> buffer_of_size("gamma", gamma, q.C, 8, False), train
    q.sums = <double*> buffer_of_size("sums", sums, 2 * q.C, 8, True)
    with nogil:
        fc_parallel_for(q.queue, batch_gradient_columns_worker if q.S == 1 else batch_gradient_worker, &q)


cdef void batch_gradient_worker(void* task) noexcept nogil:
    cdef const Norm* q = <const Norm*> task
    cdef fc_worker worker = fc_new_worker(q.queue)
    cdef Py_ssize_t begin = fc_next_chunk(q.queue, &worker, q.C), end, c, j, n, at, here, most = channels_at_a_time(q)
    cdef fc_norm_groups channels = fc_norm_groups(q.N, q.S, q.C * q.S, 0, q.S, False)
    cdef double inverse_count = 1. / (<double> q.N * <double> q.S) if q.train else 0.
    cdef double factor
    cdef double[FC_COLUMNS] of_x, shift
    while begin < q.C:
        c, end = begin, min(begin + q.queue.grain, q.C)
        while c < end:
            at, channels.count = c * q.S * q.itemsize, min(most, end - c)
            q.kernels.products(q.dout + at, q.x + at, channels, q.mean + c, q.scale + c, q.sums + 2 * c)
            # dx = gamma scale (dout - mean(dout) - x_hat mean(dout x_hat)), x_hat = (x - mean) scale
            for j in range(channels.count):
                factor = q.gamma[c + j] * q.scale[c + j] * inverse_count
                of_x[j] = -factor * q.scale[c + j] * q.sums[2 * (c + j) + 1]
                shift[j] = -factor * q.sums[2 * (c + j)]
            n = 0
            while n < q.N:
                if stopped(q, q.N * q.S):
                    return
                here, channels.runs = at + n * q.C * q.S * q.itemsize, min(rows_at_a_time(q.N, q.S), q.N - n)
                q.kernels.combine(q.dout + here, q.x + here, q.to + here, channels, q.mean + c,
                                  q.scale + c, q.gamma + c, of_x, shift)
                n += channels.runs
            channels.runs = q.N
            c += most
        begin = fc_next_chunk(q.queue, &worker, q.C)


cdef void batch_gradient_columns_worker(void* task) noexcept nogil:
    cdef const Norm* q = <const Norm*> task
    cdef fc_worker worker = fc_new_worker(q.queue)
    cdef Py_ssize_t blocks = (q.C + FC_COLUMNS - 1) // FC_COLUMNS, block = fc_next_chunk(q.queue, &worker, blocks)
    cdef Py_ssize_t end, c, j, at
    cdef double[FC_COLUMNS] of_dout, of_x, shift
    cdef fc_norm_groups columns = fc_norm_groups(q.N, 0, q.C, 1, 0, False)
    cdef double inverse_count = 1. / <double> q.N if q.train else 0.
    while block < blocks:
        end = min(block + q.queue.grain, blocks)
        while block < end:
            c = block * FC_COLUMNS
            at, columns.n = c * q.itemsize, min(<Py_ssize_t> FC_COLUMNS, q.C - c)
            q.kernels.column_products(q.dout + at, q.x + at, columns, q.mean + c, q.scale + c, 0,
                                      q.sums + 2 * c)
            for j in range(columns.n):
                of_dout[j] = q.gamma[c + j] * q.scale[c + j]
                of_x[j] = -of_dout[j] * q.scale[c + j] * q.sums[2 * (c + j) + 1] * inverse_count
                shift[j] = -of_dout[j] * q.sums[2 * (c + j)] * inverse_count
            q.kernels.column_combine(q.dout + at, q.x + at, q.to + at, columns, q.mean + c, of_dout,
                                     of_x, shift)
            block += 1
        block = fc_next_chunk(q.queue, &worker, blocks)


def group_forward(int dtype, x, y, gamma, beta, mean, scale, sizes, double eps, int isa, queue):
    """Compute y = (x - mean) * scale * gamma + beta with scale = 1 / sqrt(variance + eps), for each group of channels
    of an image.

    `sizes` has the attributes N, C, S and G, the number of groups. mean and scale are N * G doubles. gamma and beta
    have an element for each channel; they are doubles or, if S is 1, of the dtype of x. A work item is one group of
    channels of one image.
    """
    cdef Norm q = begin_call(dtype, x, None, y, mean, scale, True, sizes, isa, queue)
    if q.S == 1:
        q.gammas = <const char*> buffer_of_size("gamma", gamma, q.C, q.itemsize, False)
        q.betas = <const char*> buffer_of_size("beta", beta, q.C, q.itemsize, False)
    else:
        q.gamma = <const double*> buffer_of_size("gamma", gamma, q.C, 8, False)
        q.beta = <const double*> buffer_of_size("beta", beta, q.C, 8, False)
    q.eps = eps
    with nogil:
        fc_parallel_for(q.queue, groups_worker, &q)


cdef void groups_worker(void* task) noexcept nogil:
    cdef const Norm* q = <const Norm*> task
    cdef fc_worker worker = fc_new_worker(q.queue)
    cdef Py_ssize_t grain = q.queue.grain, groups = q.N * q.G, begin = fc_next_chunk(q.queue, &worker, groups), g
    while begin < groups:
        for g in range(begin, min(begin + grain, groups)):
            scale_group(q, g)
        begin = fc_next_chunk(q.queue, &worker, groups)


cdef inline void scale_group(const Norm* q, Py_ssize_t g) noexcept nogil:
    cdef Py_ssize_t channels = q.C // q.G, first = g % q.G * channels, at = g * channels * q.S * q.itemsize
    cdef Py_ssize_t cells = channels * q.S, c = 0
    cdef fc_norm_groups channel_groups = fc_norm_groups(1, q.S, q.S, channels, q.S, True)
    cdef double variance = 0
    q.kernels.moments(q.x + at, fc_norm_groups(1, cells, cells, 1, cells, True), &q.mean[g], &variance)
    q.scale[g] = 1 / sqrt(variance + q.eps)
    if q.S == 1:
        q.kernels.scale_row(q.x + at, q.gammas + first * q.itemsize, q.betas + first * q.itemsize,
                            q.to + at, cells, q.mean[g], q.scale[g])
    else:
        while c < channels and not stopped(q, cells):
            channel_groups.count = min(rows_at_a_time(channels, q.S), channels - c)
            q.kernels.scale(q.x + at, q.to + at, channel_groups, &q.mean[g], &q.scale[g], q.gamma + first + c,
                            q.beta + first + c)
            at += channel_groups.count * q.S * q.itemsize
            c += channel_groups.count


def group_backward(int dtype, dout, x, dx, gamma, mean, scale, sums, sizes, int isa, queue):
    """Compute dx and, unless S is 1, `sums` (N, C, 2): the contributions of each image to dbeta and dgamma. If S is 1,
    `group_sums` computes dbeta and dgamma.
    """
    cdef Norm q = begin_call(dtype, x, dout, dx, mean, scale, True, sizes, isa, queue)
    if q.S == 1:
        q.gammas = <const char*> buffer_of_size("gamma", gamma, q.C, q.itemsize, False)
    else:
        q.gamma = <const double*> buffer_of_size("gamma", gamma, q.C, 8, False)
        q.sums = <double*> buffer_of_size("sums", sums, 2 * q.N * q.C, 8, True)
    with nogil:
        fc_parallel_for(q.queue, group_gradients_worker, &q)


cdef void group_gradients_worker(void* task) noexcept nogil:
    cdef const Norm* q = <const Norm*> task
    cdef fc_worker worker = fc_new_worker(q.queue)
    cdef Py_ssize_t grain = q.queue.grain, groups = q.N * q.G, begin = fc_next_chunk(q.queue, &worker, groups), g
    while begin < groups:
        for g in range(begin, min(begin + grain, groups)):
            group_gradient(q, g)
        begin = fc_next_chunk(q.queue, &worker, groups)


cdef inline void group_gradient(const Norm* q, Py_ssize_t g) noexcept nogil:
    cdef Py_ssize_t channels = q.C // q.G, first = g % q.G * channels, at = g * channels * q.S * q.itemsize, c
    cdef Py_ssize_t cells = channels * q.S
    cdef fc_norm_groups channel_groups = fc_norm_groups(1, q.S, q.S, channels, q.S, True)
    cdef double scale = q.scale[g], mean = q.mean[g], of_x, shift
    cdef double[2] total = [0, 0]
    cdef double* sums = q.sums + 2 * g * channels
    if q.S == 1:
        q.kernels.products_row(q.dout + at, q.x + at, q.gammas + first * q.itemsize, cells, mean,
                               total)
        total[1] *= scale
    else:
        q.kernels.products(q.dout + at, q.x + at, channel_groups, &mean, &scale, sums)
        for c in range(channels):
            total[0] += q.gamma[first + c] * sums[2 * c]
            total[1] += q.gamma[first + c] * sums[2 * c + 1]
    # dx = scale (gamma dout - mean(gamma dout) - x_hat mean(gamma dout x_hat)), x_hat = (x - mean) scale
    of_x, shift = -scale * scale * total[1] / cells, -scale * total[0] / cells
    if q.S == 1:
        q.kernels.combine_row(q.dout + at, q.x + at, q.gammas + first * q.itemsize, q.to + at, cells,
                              mean, scale, of_x, shift)
    else:
        c = 0
        while c < channels and not stopped(q, cells):
            channel_groups.count = min(rows_at_a_time(channels, q.S), channels - c)
            q.kernels.combine(q.dout + at, q.x + at, q.to + at, channel_groups, &mean, &scale,
                              q.gamma + first + c, &of_x, &shift)
            at += channel_groups.count * q.S * q.itemsize
            c += channel_groups.count


def group_sums(int dtype, dout, x, mean, scale, sums, sizes, int isa, queue):
    """Compute `sums` (C, 2) for S = 1. The columns of `sums` are dbeta and dgamma, summed over all images.

    A work item is a block of channels of a group. COLUMNS is the largest number of channels of a block.
    """
    cdef Norm q = begin_call(dtype, x, dout, None, mean, scale, True, sizes, isa, queue)
    q.sums = <double*> buffer_of_size("sums", sums, 2 * q.C, 8, True)
    with nogil:
        fc_parallel_for(q.queue, group_sums_worker, &q)


cdef void group_sums_worker(void* task) noexcept nogil:
    cdef const Norm* q = <const Norm*> task
    cdef fc_worker worker = fc_new_worker(q.queue)
    cdef Py_ssize_t channels = q.C // q.G, blocks = (channels + FC_COLUMNS - 1) // FC_COLUMNS, items = q.G * blocks
    cdef Py_ssize_t item = fc_next_chunk(q.queue, &worker, items), end, g, c
    cdef fc_norm_groups columns = fc_norm_groups(q.N, 0, q.C, 1, 0, False)
    while item < items:
        end = min(item + q.queue.grain, items)
        while item < end:
            g, c = item // blocks, item % blocks * FC_COLUMNS
            columns.n = min(<Py_ssize_t> FC_COLUMNS, channels - c)
            c += g * channels
            q.kernels.column_products(q.dout + c * q.itemsize, q.x + c * q.itemsize, columns,
                                      q.mean + g, q.scale + g, q.G, q.sums + 2 * c)
            item += 1
        item = fc_next_chunk(q.queue, &worker, items)
