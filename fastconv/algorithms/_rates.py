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
            "product": 0.0161,
            "columns": 0.05998,
            "touched": 0.0529,
            "weights": 0.0001022,
            "block": 7.86,
            "call": 28880.0,
        },
        "backward_data": {
            "product": 0.01453,
            "columns": 0.08105,
            "touched": 0.07274,
            "weights": 0.084,
            "block": 54.14,
            "call": 22540.0,
        },
        "backward_weights": {
            "product": 0.01518,
            "columns": 0.06897,
            "touched": 0.03004,
            "weights": 0.0001145,
            "block": 9.086,
            "call": 76700.0,
        },
    },
    "implicit": {
        "forward": {
            "product": 0.3257,
            "packed": 0.0007578,
            "touched": 0.1406,
            "call": 4544.0,
        },
        "backward_data": {
            "product": 0.4357,
            "packed": 0.3967,
            "touched": 0.126,
            "call": 5111.0,
        },
        "backward_weights": {
            "product": 0.3247,
            "packed": 0.2031,
            "touched": 0.0803,
            "call": 4967.0,
        },
    },
    "winograd": {
        "forward": {
            "product": 0.4037,
            "image": 1.128,
            "result": 0.2469,
            "weights": 0.3137,
            "touched": 0.2054,
            "call": 13330.0,
        },
        "backward_data": {
            "product": 0.4148,
            "image": 0.7029,
            "result": 1.228,
            "weights": 0.9656,
            "touched": 0.1461,
            "call": 12670.0,
        },
        "backward_weights": {
            "product": 0.3623,
            "image": 0.7578,
            "result": 0.0006302,
            "weights": 2.897,
            "touched": 0.2581,
            "call": 10920.0,
        },
    },
    "depthwise": {
        "forward": {
            "product": 0.03047,
            "touched": 0.1046,
            "rows": 0.004527,
            "call": 15760.0,
        },
        "backward_data": {
            "product": 0.05367,
            "touched": 0.06581,
            "rows": 3.273,
            "call": 18220.0,
        },
        "backward_weights": {
            "product": 0.05546,
            "touched": 0.09986,
            "rows": 2.578,
            "call": 18390.0,
        },
    },
    "fft": {
        "forward": {
            "transforms": 0.01285,
            "ordered": 3.318,
            "products": 0.05342,
            "frequencies": 50.65,
            "call": 94500.0,
        },
        "backward_data": {
            "transforms": 0.01131,
            "ordered": 1.554,
            "products": 0.09373,
            "frequencies": 0.5203,
            "call": 130800.0,
        },
        "backward_weights": {
            "transforms": 0.00622,
            "ordered": 2.834,
            "products": 0.1986,
            "frequencies": 87.66,
            "call": 239800.0,
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
