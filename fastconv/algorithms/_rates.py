"""What a unit of each kind of work takes, in nanoseconds: written by ``benchmarks/fit_costs.py --write``."""

RATES: dict[str, dict[str, dict[str, float]]] = {
    "reference": {
        "forward": {
            "product": 2.5,
            "call": 1000000.0,
        },
        "backward_data": {
            "product": 2.5,
            "call": 1000000.0,
        },
        "backward_weights": {
            "product": 2.5,
            "call": 1000000.0,
        },
    },
    "im2col": {
        "forward": {
            "product": 0.008613,
            "columns": 0.09845,
            "touched": 0.06888,
            "weights": 0.1071,
            "block": 3.134,
            "call": 14150.0,
        },
        "backward_data": {
            "product": 0.011,
            "columns": 0.1852,
            "touched": 0.04586,
            "weights": 0.02317,
            "block": 28.92,
            "call": 13160.0,
        },
        "backward_weights": {
            "product": 0.01089,
            "columns": 0.1319,
            "touched": 0.07805,
            "weights": 0.0001089,
            "block": 5.334,
            "call": 16720.0,
        },
    },
    "implicit": {
        "forward": {
            "product": 0.287,
            "packed": 0.6268,
            "touched": 0.09264,
            "call": 4839.0,
        },
        "backward_data": {
            "product": 0.284,
            "packed": 0.4211,
            "touched": 0.1201,
            "call": 5234.0,
        },
        "backward_weights": {
            "product": 0.2753,
            "packed": 0.2432,
            "touched": 0.08275,
            "call": 5686.0,
        },
    },
    "winograd": {
        "forward": {
            "product": 0.2342,
            "image": 0.1695,
            "result": 8.542,
            "weights": 2.454,
            "touched": 0.1379,
            "call": 6833.0,
        },
        "backward_data": {
            "product": 0.3705,
            "image": 2.636,
            "result": 2.273,
            "weights": 1.804,
            "touched": 0.1441,
            "call": 10010.0,
        },
        "backward_weights": {
            "product": 0.4078,
            "image": 2.249,
            "result": 2.889,
            "weights": 1.318,
            "touched": 0.1447,
            "call": 9002.0,
        },
    },
    "depthwise": {
        "forward": {
            "product": 0.01198,
            "touched": 0.08573,
            "rows": 0.06819,
            "call": 11560.0,
        },
        "backward_data": {
            "product": 0.02207,
            "touched": 0.0683,
            "rows": 0.6003,
            "call": 12040.0,
        },
        "backward_weights": {
            "product": 0.03314,
            "touched": 0.07807,
            "rows": 0.07783,
            "call": 12960.0,
        },
    },
    "fft": {
        "forward": {
            "transforms": 0.01224,
            "ordered": 2.076,
            "products": 0.05475,
            "frequencies": 7.182,
            "call": 166100.0,
        },
        "backward_data": {
            "transforms": 0.01126,
            "ordered": 1.739,
            "products": 0.09002,
            "frequencies": 0.2471,
            "call": 136100.0,
        },
        "backward_weights": {
            "transforms": 0.0005562,
            "ordered": 1.906,
            "products": 0.1786,
            "frequencies": 6.643,
            "call": 242800.0,
        },
    },
    "toeplitz": {
        "forward": {
            "product": 1.5,
            "entries": 1.0,
            "turned": 2.0,
            "call": 200000.0,
        },
        "backward_data": {
            "product": 1.5,
            "entries": 1.0,
            "turned": 2.0,
            "call": 200000.0,
        },
        "backward_weights": {
            "product": 1.5,
            "entries": 1.0,
            "turned": 2.0,
            "call": 200000.0,
        },
    },
    "sparse": {
        "forward": {
            "product": 0.3961,
            "beside": 0.3276,
            "weights": 0.2002,
            "touched": 0.009958,
            "call": 0.0,
        },
        "backward_data": {
            "product": 0.3711,
            "beside": 0.3327,
            "weights": 0.4751,
            "touched": 0.02709,
            "call": 0.0,
        },
        "backward_weights": {
            "product": 0.9797,
            "beside": 0.2286,
            "weights": 0.5814,
            "touched": 0.08716,
            "call": 0.0,
        },
    },
}
