"""What a unit of each kind of work takes, in nanoseconds: written by ``benchmarks/fit_costs.py --write``."""

RATES: dict[str, dict[str, dict[str, float]]] = {
    "reference": {
        "forward": {"product": 2.5, "call": 1e06},
        "backward_data": {"product": 2.5, "call": 1e06},
        "backward_weights": {"product": 2.5, "call": 1e06},
    },
    "im2col": {
        "forward": {
            "product": 0.01163,
            "columns": 0.06009,
            "touched": 0.04961,
            "weights": 0.02251,
            "block": 0,
            "call": 8324,
        },
        "backward_data": {
            "product": 0.008611,
            "columns": 0.1351,
            "touched": 0.0651,
            "weights": 0.05474,
            "block": 760.3,
            "call": 2616,
        },
        "backward_weights": {
            "product": 0.01228,
            "columns": 0.0691,
            "touched": 0.06746,
            "weights": 0,
            "block": 0,
            "call": 6649,
        },
    },
    "implicit": {
        "forward": {"product": 0.2924, "packed": 0.1535, "touched": 0.1132, "call": 9230},
        "backward_data": {"product": 0.3326, "packed": 0.4058, "touched": 0.06505, "call": 1.365e04},
        "backward_weights": {"product": 0.2961, "packed": 0.166, "touched": 0.07454, "call": 6823},
    },
    "winograd": {
        "forward": {
            "product": 0.3517,
            "image": 3.795,
            "result": 5.666,
            "weights": 1.244,
            "touched": 0.04222,
            "call": 5602,
        },
        "backward_data": {
            "product": 0.4064,
            "image": 1.285,
            "result": 4.935,
            "weights": 1.172,
            "touched": 0.09585,
            "call": 0,
        },
        "backward_weights": {
            "product": 0.3972,
            "image": 5.997,
            "result": 2.704,
            "weights": 0.6482,
            "touched": 0.06323,
            "call": 3192,
        },
    },
    "depthwise": {
        "forward": {"product": 0.03144, "touched": 0.05427, "rows": 0, "call": 1.168e04},
        "backward_data": {"product": 0.03505, "touched": 0.04665, "rows": 0, "call": 1.171e04},
        "backward_weights": {"product": 0.0333, "touched": 0.04547, "rows": 1.102, "call": 1.066e04},
    },
    "fft": {
        "forward": {"transforms": 0, "ordered": 1.732, "products": 0.09407, "frequencies": 115.3, "call": 7.771e04},
        "backward_data": {
            "transforms": 0.004536,
            "ordered": 1.445,
            "products": 0.1198,
            "frequencies": 0,
            "call": 9.491e04,
        },
        "backward_weights": {
            "transforms": 0.03558,
            "ordered": 1.677,
            "products": 0.4977,
            "frequencies": 0,
            "call": 5.381e04,
        },
    },
}
