"""What a unit of each kind of work takes, in nanoseconds: written by ``benchmarks/fit_costs.py --write``."""

RATES: dict[str, dict[str, dict[str, float]]] = {
    "reference": {
        "forward": {"product": 2.5, "call": 1e06},
        "backward_data": {"product": 2.5, "call": 1e06},
        "backward_weights": {"product": 2.5, "call": 1e06},
    },
    "im2col": {
        "forward": {
            "product": 0.01475,
            "columns": 0.07905,
            "touched": 0.007159,
            "weights": 0.05353,
            "block": 2.073,
            "call": 7130,
        },
        "backward_data": {
            "product": 0.01151,
            "columns": 0.09089,
            "touched": 0.05613,
            "weights": 0.02377,
            "block": 3988,
            "call": 1.111e04,
        },
        "backward_weights": {
            "product": 0.009254,
            "columns": 0.1703,
            "touched": 0.1339,
            "weights": 0.0001011,
            "block": 4.515,
            "call": 1.395e04,
        },
    },
    "implicit": {
        "forward": {"product": 0.3142, "packed": 0.5796, "touched": 0.07168, "call": 8587},
        "backward_data": {"product": 0.3384, "packed": 0.2377, "touched": 0.09353, "call": 2.271e04},
        "backward_weights": {"product": 0.2248, "packed": 0.1139, "touched": 0.1844, "call": 6312},
    },
    "winograd": {
        "forward": {
            "product": 0.3119,
            "image": 6.09,
            "result": 4.432,
            "weights": 0.9164,
            "touched": 0.07517,
            "call": 15.13,
        },
        "backward_data": {
            "product": 0.39,
            "image": 4.074,
            "result": 4.684,
            "weights": 2.33,
            "touched": 0.06117,
            "call": 3134,
        },
        "backward_weights": {
            "product": 0.3373,
            "image": 2.324,
            "result": 5.374,
            "weights": 3.099,
            "touched": 0.0903,
            "call": 174.5,
        },
    },
    "depthwise": {
        "forward": {"product": 0.03321, "touched": 0.06327, "rows": 0.003963, "call": 1.085e04},
        "backward_data": {"product": 0.03639, "touched": 0.05536, "rows": 0.003032, "call": 9954},
        "backward_weights": {"product": 0.02871, "touched": 0.08276, "rows": 0.5777, "call": 6478},
    },
    "fft": {
        "forward": {
            "transforms": 0.01203,
            "ordered": 1.764,
            "products": 0.05325,
            "frequencies": 7.095,
            "call": 1.124e05,
        },
        "backward_data": {
            "transforms": 0.01933,
            "ordered": 1.397,
            "products": 0.08103,
            "frequencies": 0.09858,
            "call": 1.548e05,
        },
        "backward_weights": {
            "transforms": 0.1015,
            "ordered": 1.338,
            "products": 0.4844,
            "frequencies": 0.1863,
            "call": 1.218e05,
        },
    },
}
