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
            "product": 0.0102,
            "columns": 0.06112,
            "touched": 0.05885,
            "weights": 0.08546,
            "block": 2.589,
            "call": 11870.0,
        },
        "backward_data": {
            "product": 0.009279,
            "columns": 0.1142,
            "touched": 0.03553,
            "weights": 0.03318,
            "block": 25.99,
            "call": 11740.0,
        },
        "backward_weights": {
            "product": 0.0102,
            "columns": 0.1541,
            "touched": 0.09272,
            "weights": 1.041e-05,
            "block": 1.429,
            "call": 10720.0,
        },
    },
    "implicit": {
        "forward": {
            "product": 0.3124,
            "packed": 0.0002543,
            "touched": 0.1304,
            "call": 3779.0,
        },
        "backward_data": {
            "product": 0.3504,
            "packed": 0.8915,
            "touched": 0.02543,
            "call": 3933.0,
        },
        "backward_weights": {
            "product": 0.3076,
            "packed": 0.1092,
            "touched": 0.05341,
            "call": 4804.0,
        },
    },
    "winograd": {
        "forward": {
            "product": 0.3113,
            "image": 0.003539,
            "result": 7.807,
            "weights": 3.059,
            "touched": 0.06683,
            "call": 5948.0,
        },
        "backward_data": {
            "product": 0.3444,
            "image": 5.555,
            "result": 0.004526,
            "weights": 0.9551,
            "touched": 0.1295,
            "call": 6929.0,
        },
        "backward_weights": {
            "product": 0.4272,
            "image": 0.04112,
            "result": 1.621,
            "weights": 0.7353,
            "touched": 0.1616,
            "call": 6981.0,
        },
    },
    "depthwise": {
        "forward": {
            "product": 0.01758,
            "touched": 0.06147,
            "rows": 0.05115,
            "call": 10240.0,
        },
        "backward_data": {
            "product": 0.02363,
            "touched": 0.04382,
            "rows": 0.351,
            "call": 10190.0,
        },
        "backward_weights": {
            "product": 0.01977,
            "touched": 0.06675,
            "rows": 0.0004611,
            "call": 10180.0,
        },
    },
    "fft": {
        "forward": {
            "transforms": 0.01142,
            "ordered": 1.986,
            "products": 0.0545,
            "frequencies": 6.988,
            "call": 65280.0,
        },
        "backward_data": {
            "transforms": 0.02945,
            "ordered": 1.232,
            "products": 0.0853,
            "frequencies": 0.1061,
            "call": 198700.0,
        },
        "backward_weights": {
            "transforms": 0.001585,
            "ordered": 1.431,
            "products": 0.02086,
            "frequencies": 8.535,
            "call": 241100.0,
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
