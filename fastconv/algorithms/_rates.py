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
            "product": 0.01077,
            "columns": 0.02978,
            "touched": 0.1074,
            "weights": 0.06076,
            "block": 2.212,
            "call": 10710.0,
        },
        "backward_data": {
            "product": 0.008653,
            "columns": 0.08617,
            "touched": 0.1222,
            "weights": 1.111e-05,
            "block": 21.89,
            "call": 9408.0,
        },
        "backward_weights": {
            "product": 0.00776,
            "columns": 0.08089,
            "touched": 0.1682,
            "weights": 0.02606,
            "block": 1.035,
            "call": 11180.0,
        },
    },
    "implicit": {
        "forward": {
            "product": 0.1921,
            "packed": 0.0002343,
            "touched": 0.1973,
            "call": 3674.0,
        },
        "backward_data": {
            "product": 0.2759,
            "packed": 0.1454,
            "touched": 0.1221,
            "call": 9989.0,
        },
        "backward_weights": {
            "product": 0.1628,
            "packed": 0.09378,
            "touched": 0.2319,
            "call": 4263.0,
        },
    },
    "winograd": {
        "forward": {
            "product": 0.2433,
            "image": 0.05674,
            "result": 4.017,
            "weights": 8.816e-05,
            "touched": 0.1598,
            "call": 6144.0,
        },
        "backward_data": {
            "product": 0.2963,
            "image": 3.768,
            "result": 0.181,
            "weights": 0.7432,
            "touched": 0.1779,
            "call": 5502.0,
        },
        "backward_weights": {
            "product": 0.2479,
            "image": 0.001035,
            "result": 2.023,
            "weights": 0.5886,
            "touched": 0.241,
            "call": 6326.0,
        },
    },
    "depthwise": {
        "forward": {
            "product": 0.01541,
            "touched": 0.0618,
            "rows": 0.049,
            "call": 9916.0,
        },
        "backward_data": {
            "product": 0.02191,
            "touched": 0.03717,
            "rows": 1.047,
            "call": 8890.0,
        },
        "backward_weights": {
            "product": 0.01923,
            "touched": 0.06655,
            "rows": 2.392e-07,
            "call": 10830.0,
        },
    },
    "fft": {
        "forward": {
            "transforms": 0.0122,
            "ordered": 1.601,
            "products": 0.05,
            "frequencies": 7.165,
            "call": 207900.0,
        },
        "backward_data": {
            "transforms": 0.1318,
            "ordered": 0.8391,
            "products": 0.1279,
            "frequencies": 0.2559,
            "call": 115500.0,
        },
        "backward_weights": {
            "transforms": 0.08195,
            "ordered": 1.671,
            "products": 0.007015,
            "frequencies": 14.1,
            "call": 37230.0,
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
