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
            "product": 0.0112,
            "columns": 0.08259,
            "touched": 0.04156,
            "weights": 0.124,
            "block": 4.482,
            "call": 12240.0,
        },
        "backward_data": {
            "product": 0.008663,
            "columns": 0.1544,
            "touched": 0.02443,
            "weights": 0.03666,
            "block": 14290.0,
            "call": 9.247,
        },
        "backward_weights": {
            "product": 0.01079,
            "columns": 0.1474,
            "touched": 0.1031,
            "weights": 1.245e-05,
            "block": 0.3332,
            "call": 13930.0,
        },
    },
    "implicit": {
        "forward": {
            "product": 0.3048,
            "packed": 0.0002584,
            "touched": 0.1467,
            "call": 4184.0,
        },
        "backward_data": {
            "product": 0.3287,
            "packed": 0.983,
            "touched": 0.04759,
            "call": 4825.0,
        },
        "backward_weights": {
            "product": 0.3087,
            "packed": 0.1556,
            "touched": 0.07179,
            "call": 5413.0,
        },
    },
    "winograd": {
        "forward": {
            "product": 0.3259,
            "image": 3.339,
            "result": 4.77,
            "weights": 0.257,
            "touched": 0.121,
            "call": 6999.0,
        },
        "backward_data": {
            "product": 0.395,
            "image": 5.836,
            "result": 0.3201,
            "weights": 0.06584,
            "touched": 0.1343,
            "call": 8115.0,
        },
        "backward_weights": {
            "product": 0.4368,
            "image": 1.938,
            "result": 0.003186,
            "weights": 0.7739,
            "touched": 0.1852,
            "call": 9071.0,
        },
    },
    "depthwise": {
        "forward": {
            "product": 0.01404,
            "touched": 0.08298,
            "rows": 0.7813,
            "call": 10660.0,
        },
        "backward_data": {
            "product": 0.01758,
            "touched": 0.0753,
            "rows": 5.039e-07,
            "call": 12120.0,
        },
        "backward_weights": {
            "product": 0.0259,
            "touched": 0.0879,
            "rows": 1.219e-11,
            "call": 11220.0,
        },
    },
    "fft": {
        "forward": {
            "transforms": 0.01217,
            "ordered": 2.191,
            "products": 0.056,
            "frequencies": 7.158,
            "call": 208600.0,
        },
        "backward_data": {
            "transforms": 0.01114,
            "ordered": 1.362,
            "products": 0.09694,
            "frequencies": 0.1736,
            "call": 168700.0,
        },
        "backward_weights": {
            "transforms": 5.85e-07,
            "ordered": 1.106,
            "products": 0.6293,
            "frequencies": 6.498,
            "call": 295300.0,
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
