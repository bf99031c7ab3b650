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
            "product": 0.00877,
            "columns": 0.1029,
            "touched": 0.1006,
            "weights": 7.38e-05,
            "block": 3.385,
            "call": 15190.0,
        },
        "backward_data": {
            "product": 0.01074,
            "columns": 0.1898,
            "touched": 0.04936,
            "weights": 0.02453,
            "block": 32.41,
            "call": 13160.0,
        },
        "backward_weights": {
            "product": 0.01105,
            "columns": 0.1376,
            "touched": 0.0628,
            "weights": 7.371e-05,
            "block": 6.255,
            "call": 15200.0,
        },
    },
    "implicit": {
        "forward": {
            "product": 0.3262,
            "packed": 0.0002078,
            "touched": 0.1154,
            "call": 4979.0,
        },
        "backward_data": {
            "product": 0.2783,
            "packed": 0.4344,
            "touched": 0.1287,
            "call": 5198.0,
        },
        "backward_weights": {
            "product": 0.2703,
            "packed": 0.2344,
            "touched": 0.09707,
            "call": 5713.0,
        },
    },
    "winograd": {
        "forward": {
            "product": 0.3253,
            "image": 0.7392,
            "result": 0.5787,
            "weights": 0.3891,
            "touched": 0.08801,
            "call": 28600.0,
        },
        "backward_data": {
            "product": 0.3169,
            "image": 0.244,
            "result": 0.06492,
            "weights": 0.1348,
            "touched": 0.2261,
            "call": 46570.0,
        },
        "backward_weights": {
            "product": 0.4407,
            "image": 0.3437,
            "result": 0.05201,
            "weights": 0.4188,
            "touched": 0.1993,
            "call": 11060.0,
        },
    },
    "depthwise": {
        "forward": {
            "product": 0.01331,
            "touched": 0.083,
            "rows": 0.03911,
            "call": 11550.0,
        },
        "backward_data": {
            "product": 0.02211,
            "touched": 0.06795,
            "rows": 0.6,
            "call": 12060.0,
        },
        "backward_weights": {
            "product": 0.03302,
            "touched": 0.07799,
            "rows": 0.1014,
            "call": 13020.0,
        },
    },
    "fft": {
        "forward": {
            "transforms": 0.01281,
            "ordered": 2.359,
            "products": 0.05207,
            "frequencies": 7.373,
            "call": 92990.0,
        },
        "backward_data": {
            "transforms": 0.01129,
            "ordered": 1.722,
            "products": 0.0857,
            "frequencies": 0.2825,
            "call": 128100.0,
        },
        "backward_weights": {
            "transforms": 0.0006193,
            "ordered": 1.904,
            "products": 0.171,
            "frequencies": 6.684,
            "call": 224300.0,
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
