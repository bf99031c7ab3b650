"""What a unit of each kind of work takes, in nanoseconds: written by ``benchmarks/fit_costs.py --write``."""

RATES: dict[str, dict[str, dict[str, float]]] = {
    "reference": {
        "forward": {"product": 2.5, "call": 1e06},
        "backward_data": {"product": 2.5, "call": 1e06},
        "backward_weights": {"product": 2.5, "call": 1e06},
    },
    "im2col": {
        "forward": {
            "product": 0.01278,
            "columns": 0.05354,
            "touched": 0.1,
            "weights": 0.03313,
            "block": 0,
            "call": 1.117e04,
        },
        "backward_data": {
            "product": 0.011,
            "columns": 0.1189,
            "touched": 0.1,
            "weights": 0.06234,
            "block": 1423,
            "call": 5952,
        },
        "backward_weights": {
            "product": 0.01451,
            "columns": 0.06737,
            "touched": 0.1,
            "weights": 0.006465,
            "block": 0,
            "call": 8886,
        },
    },
    "implicit": {
        "forward": {"product": 0.2994, "packed": 0.01135, "touched": 0.0954, "call": 8567},
        "backward_data": {"product": 0.3263, "packed": 0.3702, "touched": 0.04094, "call": 1.609e04},
        "backward_weights": {"product": 0.2841, "packed": 0.2079, "touched": 0.04856, "call": 7030},
    },
    "winograd": {
        "forward": {
            "product": 0.3494,
            "image": 2.297,
            "result": 4.745,
            "weights": 0.638,
            "touched": 0.06463,
            "call": 6749,
        },
        "backward_data": {
            "product": 0.4009,
            "image": 3.029,
            "result": 1.819,
            "weights": 1.333,
            "touched": 0.06721,
            "call": 6771,
        },
        "backward_weights": {
            "product": 0.3475,
            "image": 5.731,
            "result": 2.925,
            "weights": 0.2574,
            "touched": 0.09761,
            "call": 4516,
        },
    },
    "depthwise": {
        "forward": {"product": 0.02458, "touched": 0.05665, "rows": 0.8847, "call": 1.148e04},
        "backward_data": {"product": 0.03001, "touched": 0.04611, "rows": 0.3583, "call": 1.206e04},
        "backward_weights": {"product": 0.02805, "touched": 0.04521, "rows": 1.89, "call": 1.086e04},
    },
    "fft": {
        "forward": {"transforms": 0.2256, "ordered": 0.9512, "products": 0.1302, "frequencies": 0, "call": 7.74e04},
        "backward_data": {
            "transforms": 0.09252,
            "ordered": 1.147,
            "products": 0.1311,
            "frequencies": 0,
            "call": 7.053e04,
        },
        "backward_weights": {"transforms": 0, "ordered": 1.552, "products": 0.151, "frequencies": 0, "call": 6.367e04},
    },
}
