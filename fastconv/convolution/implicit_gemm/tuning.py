"""The block sizes of `implicit`, and the limits that decide how it divides its work."""

from __future__ import annotations

from fastconv._ext.gemm import implicit as _ext
from fastconv.runtime.records import dataclass

#: The modes: the ways in which tiles read the image. The enum `Mode` of ``_ext/gemm/tiles.pxd`` explains them.
CONTIGUOUS, PADDED_GRID, ROW_WISE = _ext.CONTIGUOUS, _ext.PADDED_GRID, _ext.ROW_WISE
PACKED, SWAPPED = _ext.PACKED, _ext.SWAPPED


@dataclass(frozen=True)
class Tuning:
    """The block sizes and limits of `implicit`. The defaults are the fastest values that were measured."""

    #: The modes that are compared.
    modes: tuple[int, ...] = (CONTIGUOUS, PADDED_GRID, ROW_WISE, PACKED, SWAPPED)
    #: The approximate bytes of a padded block, and of packed weights. Both together fit the second-level cache.
    block_bytes: int = 1 << 19
    panel_bytes: int = 3 << 17
    #: A product is computed in blocks along k, and sums are stored after each block. A block has about `kc` steps for
    #: wide tiles, and about `kc_narrow` steps for narrow tiles. If its packed weights would exceed `panel_bytes`, it
    #: has fewer steps, but at least `kc_min`.
    kc: int = 240
    kc_narrow: int = 180
    kc_min: int = 64
    #: In the mode SWAPPED, `kc_swapped` limits the steps of a block along k. `swapped_bytes` limits the bytes of its
    #: packed cells, and the bytes of its padded cells. Both limits are high, because the cells are read only once for
    #: each panel of weights.
    kc_swapped: int = 1024
    swapped_bytes: int = 1 << 20
    #: The approximate number of output positions of a block. With so many positions, a block takes little time to pack
    #: the weights, compared with its products.
    nc: int = 480
    #: The image cells of a tile are packed into a panel if at least `packing_rows` tiles use the panel, and if it takes
    #: at most `near_bytes` bytes. Panels of this size fit the first-level cache.
    packing_rows: float = 6
    near_bytes: int = 20000
    #: The largest number of tiles that are multiplied, one after another, by the same rows of weights.
    most_tiles: int = _ext.MOST_TILES
    #: Whether a row of a block may be stored once for each tap along the last axis, so that neighbouring outputs read
    #: neighbouring elements even with a large stride.
    unrolls_taps: bool = True
    #: Whether weights are packed faster if their rows, their taps or their columns are contiguous.
    knows_layouts: bool = True
    #: For dx, weights are repacked before the product if each group has at least `repacked_blocks` blocks, and if the
    #: repacked weights take at most `repacked_bytes` bytes.
    repacked_blocks: float = 3
    repacked_bytes: int = 1 << 24
    #: Threads share packed weights if each thread has at least this number of blocks for each group.
    shared_blocks: float = 2
    #: For dw, the approximate largest and smallest number of output positions of a block. A panel of dout holds the
    #: positions of one block.
    summed: int = 320
    least_summed: int = 128
    #: The largest number of calls that a plan stores. If dx has more stride phases, its work is estimated from one call
    #: of each kind.
    few_phases: int = 16


#: The tuning that is used if no other is given.
DEFAULT = Tuning()
