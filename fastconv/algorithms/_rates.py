"""What a unit of each kind of work takes, in nanoseconds, by the instruction set that it was measured in:
written by ``benchmarks/fit_costs.py --write``.
"""

RATES: dict[str, dict[str, dict[str, dict[str, float]]]] = {
    "avx2": {
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
                "product": 0.01566,
                "columns": 0.05755,
                "touched": 0.08859,
                "weights": 0.0009131,
                "block": 0.984,
                "call": 34590.0,
            },
            "backward_data": {
                "product": 0.01765,
                "columns": 0.05265,
                "touched": 0.0557,
                "weights": 0.0001396,
                "block": 55.74,
                "call": 55450.0,
            },
            "backward_weights": {
                "product": 0.01676,
                "columns": 0.07245,
                "touched": 0.01873,
                "weights": 0.0001115,
                "block": 9.096,
                "call": 115600.0,
            },
        },
        "implicit": {
            "forward": {
                "product": 0.3202,
                "packed": 0.2614,
                "touched": 0.09595,
                "call": 5061.0,
            },
            "backward_data": {
                "product": 0.3725,
                "packed": 0.5093,
                "touched": 0.13,
                "call": 8946.0,
            },
            "backward_weights": {
                "product": 0.2914,
                "packed": 0.3128,
                "touched": 0.09448,
                "call": 4430.0,
            },
        },
        "winograd": {
            "forward": {
                "product": 0.4472,
                "image": 0.608,
                "result": 0.2363,
                "weights": 0.2929,
                "touched": 0.1857,
                "call": 15960.0,
            },
            "backward_data": {
                "product": 0.4342,
                "image": 0.4469,
                "result": 0.3389,
                "weights": 0.356,
                "touched": 0.2606,
                "call": 13840.0,
            },
            "backward_weights": {
                "product": 0.4793,
                "image": 0.6864,
                "result": 0.2656,
                "weights": 0.5401,
                "touched": 0.1728,
                "call": 11530.0,
            },
        },
        "depthwise": {
            "forward": {
                "product": 0.02467,
                "touched": 0.08807,
                "rows": 2.189e-12,
                "call": 14860.0,
            },
            "backward_data": {
                "product": 0.1086,
                "touched": 0.02811,
                "rows": 0.004002,
                "call": 11880.0,
            },
            "backward_weights": {
                "product": 0.07163,
                "touched": 0.1026,
                "rows": 0.9187,
                "call": 17630.0,
            },
        },
        "fft": {
            "forward": {
                "passes": 0.351,
                "moves": 1.406,
                "products": 1.09,
                "touched": 0.05,
                "steps": 400.0,
                "call": 3000.0,
            },
            "backward_data": {
                "passes": 0.364,
                "moves": 1.274,
                "products": 1.195,
                "touched": 0.05,
                "steps": 700.0,
                "call": 3000.0,
            },
            "backward_weights": {
                "passes": 0.17,
                "moves": 3.529,
                "products": 0.668,
                "touched": 0.05,
                "steps": 100.0,
                "call": 5000.0,
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
    },
    "avx512": {
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
                "product": 0.01208,
                "columns": 0.03638,
                "touched": 0.04916,
                "weights": 0.001184,
                "block": 5.316,
                "call": 38260.0,
            },
            "backward_data": {
                "product": 0.01215,
                "columns": 0.1078,
                "touched": 0.01455,
                "weights": 0.04603,
                "block": 35.38,
                "call": 13990.0,
            },
            "backward_weights": {
                "product": 0.007662,
                "columns": 0.2012,
                "touched": 0.08286,
                "weights": 7.019e-05,
                "block": 3.832,
                "call": 10550.0,
            },
        },
        "implicit": {
            "forward": {
                "product": 0.2902,
                "packed": 0.0004563,
                "touched": 0.07076,
                "call": 2997.0,
            },
            "backward_data": {
                "product": 0.3586,
                "packed": 0.1798,
                "touched": 0.04373,
                "call": 2821.0,
            },
            "backward_weights": {
                "product": 0.2284,
                "packed": 0.2616,
                "touched": 0.06544,
                "call": 2768.0,
            },
        },
        "winograd": {
            "forward": {
                "product": 0.3462,
                "image": 0.2917,
                "result": 0.222,
                "weights": 0.449,
                "touched": 0.1209,
                "call": 5778.0,
            },
            "backward_data": {
                "product": 0.4051,
                "image": 0.468,
                "result": 0.09269,
                "weights": 0.6657,
                "touched": 0.05408,
                "call": 7784.0,
            },
            "backward_weights": {
                "product": 0.3105,
                "image": 0.4494,
                "result": 0.0002829,
                "weights": 0.5426,
                "touched": 0.15,
                "call": 5735.0,
            },
        },
        "depthwise": {
            "forward": {
                "product": 0.01141,
                "touched": 0.05683,
                "rows": 0.08534,
                "call": 8909.0,
            },
            "backward_data": {
                "product": 0.01791,
                "touched": 0.04322,
                "rows": 0.3167,
                "call": 9252.0,
            },
            "backward_weights": {
                "product": 0.02198,
                "touched": 0.06099,
                "rows": 0.4533,
                "call": 11370.0,
            },
        },
        "fft": {
            "forward": {
                "passes": 0.446,
                "moves": 1.992,
                "products": 1.836,
                "touched": 0.05,
                "steps": 850.0,
                "call": 3000.0,
            },
            "backward_data": {
                "passes": 0.422,
                "moves": 2.235,
                "products": 1.954,
                "touched": 0.05,
                "steps": 1000.0,
                "call": 3000.0,
            },
            "backward_weights": {
                "passes": 0.204,
                "moves": 4.985,
                "products": 1.307,
                "touched": 0.05,
                "steps": 400.0,
                "call": 5000.0,
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
    },
}
