from collections.abc import Callable, Mapping

# One compiled function per dtype, by its name in C.
max_forward: Mapping[str, Callable[..., None]]
max_backward: Mapping[str, Callable[..., None]]
sum_forward: Mapping[str, Callable[..., None]]
sum_backward: Mapping[str, Callable[..., None]]
forward_rows: Mapping[str, Callable[..., None]]
mean_backward_rows: Mapping[str, Callable[..., None]]
pairs_forward: Mapping[str, Callable[..., None]]
pairs_backward: Mapping[str, Callable[..., None]]
