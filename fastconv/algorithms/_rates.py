"""What a unit of each kind of work takes, in nanoseconds: measured and written by ``benchmarks/fit_costs.py``."""

RATES: dict[str, dict[str, dict[str, float]]] = {
    "reference": {
        "forward": {"product": 2.5, "call": 1000000.0},
        "backward_data": {"product": 2.5, "call": 1000000.0},
        "backward_weights": {"product": 2.5, "call": 1000000.0},
    },
    "im2col": {
        "forward": {"product": 0.02, "columns": 0.1, "weights": 0.1, "block": 1000.0, "call": 10000.0},
        "backward_data": {"product": 0.02, "columns": 0.1, "weights": 0.1, "block": 1000.0, "call": 10000.0},
        "backward_weights": {"product": 0.02, "columns": 0.1, "weights": 0.1, "block": 1000.0, "call": 10000.0},
    },
    "implicit": {
        "forward": {"product": 0.3, "packed": 0.1, "touched": 0.05, "call": 10000.0},
        "backward_data": {"product": 0.3, "packed": 0.1, "touched": 0.05, "call": 10000.0},
        "backward_weights": {"product": 0.3, "packed": 0.1, "touched": 0.05, "call": 10000.0},
    },
    "winograd": {
        "forward": {"product": 0.3, "image": 1.8, "result": 1.5, "weights": 1.2, "touched": 0.05, "call": 20000.0},
        "backward_data": {
            "product": 0.3,
            "image": 1.8,
            "result": 1.5,
            "weights": 1.2,
            "touched": 0.05,
            "call": 20000.0,
        },
        "backward_weights": {
            "product": 0.3,
            "image": 1.8,
            "result": 1.5,
            "weights": 1.2,
            "touched": 0.05,
            "call": 20000.0,
        },
    },
    "depthwise": {
        "forward": {"product": 0.015, "touched": 0.05, "rows": 4.0, "call": 10000.0},
        "backward_data": {"product": 0.015, "touched": 0.05, "rows": 4.0, "call": 10000.0},
        "backward_weights": {"product": 0.015, "touched": 0.05, "rows": 4.0, "call": 10000.0},
    },
    "fft": {
        "forward": {"transforms": 1.0, "ordered": 2.0, "products": 0.4, "frequencies": 200.0, "call": 200000.0},
        "backward_data": {"transforms": 1.0, "ordered": 2.0, "products": 0.4, "frequencies": 200.0, "call": 200000.0},
        "backward_weights": {
            "transforms": 1.0,
            "ordered": 2.0,
            "products": 0.4,
            "frequencies": 200.0,
            "call": 200000.0,
        },
    },
}
