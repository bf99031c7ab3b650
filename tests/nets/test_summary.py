"""The table of a net, against published counts and against nets that are run."""

import re
from fractions import Fraction

import numpy as np
import pytest

import fastconv
from fastconv import ReceptiveField, receptive_field, summarize

LENET = [
    ("conv", 6, 5, {"pad": 2, "name": "C1"}),
    "tanh",
    ("avg_pool", 2, {"name": "S2"}),
    ("conv", 16, 5),
    "tanh",
    ("avg_pool", {"pool_height": 2, "pool_width": 2, "stride": 2}),
    "flatten",
    ("affine", 120),
    "tanh",
    ("affine", 84),
    "tanh",
    ("affine", 10),
]
ALEXNET = [
    ("conv", 64, 11, 4, 2),
    "relu",
    ("max_pool", 3, 2),
    ("conv", 192, 5, 1, 2),
    "relu",
    ("max_pool", 3, 2),
    {"kind": "conv", "filters": 384, "kernel_size": 3, "pad": "same"},
    "relu",
    ("conv", 256, 3, {"pad": 1}),
    "relu",
    ("conv", 256, (3, 3), {"pad": [(1, 1), (1, 1)]}),
    "relu",
    ("max_pool", 3, 2, {"name": "pool5"}),
    ("dropout", 0.5),
    ("affine", 4096),
    "relu",
    ("dropout", {"p": 0.5, "seed": 1}),
    ("affine", 4096),
    ("relu",),
    ("affine", 1000),
]
GROUPED_ALEXNET = [
    ("conv", 96, 11, 4),
    "relu",
    ("lrn", {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 2}),
    ("max_pool", 3, 2),
    ("conv", 256, 5, {"pad": 2, "groups": 2}),
    "relu",
    "lrn",
    ("max_pool", 3, 2),
    ("conv", 384, 3, {"pad": 1}),
    "relu",
    ("conv", 384, 3, {"pad": 1, "groups": 2}),
    "relu",
    ("conv", 256, 3, {"pad": 1, "groups": 2}),
    "relu",
    ("max_pool", 3, 2, {"name": "pool5"}),
    *[("affine", 4096), "relu"] * 2,
    ("affine", 1000),
    "softmax",
]
VGG16 = [
    *[
        layer
        for i, (convs, filters) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), 1)
        for layer in [("conv", filters, 3, 1, 1), "relu"] * convs + [("max_pool", 2, {"name": f"pool{i}"})]
    ],
    *[("affine", 4096), "relu"] * 2,
    ("affine", 1000),
]


def inception(one, *three_five_pool):
    a, b, c, d, e = three_five_pool
    return (
        "concat",
        [("conv", one, 1), "relu"],
        [("conv", a, 1), "relu", ("conv", b, 3, 1, 1), "relu"],
        [("conv", c, 1), "relu", ("conv", d, 5, 1, 2), "relu"],
        [("max_pool", 3, 1, 1), ("conv", e, 1), "relu"],
    )


HALVE = ("max_pool", 3, 2, {"ceil_mode": True})
GOOGLENET = [
    ("conv", 64, 7, 2, 3),
    HALVE,
    ("conv", 64, 1),
    ("conv", 192, 3, 1, 1),
    HALVE,
    inception(64, 96, 128, 16, 32, 32),
    inception(128, 128, 192, 32, 96, 64),
    HALVE,
    inception(192, 96, 208, 16, 48, 64),
    inception(160, 112, 224, 24, 64, 64),
    inception(128, 128, 256, 24, 64, 64),
    inception(112, 144, 288, 32, 64, 64),
    inception(256, 160, 320, 32, 128, 128),
    HALVE,
    inception(256, 160, 320, 32, 128, 128),
    inception(384, 192, 384, 48, 128, 128),
    "global_avg_pool",
    ("affine", 1000),
]


def conv_bn(filters, k, stride=1):
    return [("conv", filters, k, stride, k // 2, {"bias": False}), "batchnorm"]


def block(filters, stride=1, project=False):
    skip = conv_bn(filters, 1, stride) if project else []
    return [("add", [*conv_bn(filters, 3, stride), "relu", *conv_bn(filters, 3)], skip), "relu"]


RESNET18 = [
    *conv_bn(64, 7, 2),
    "relu",
    ("max_pool", 3, 2, 1),
    *block(64) * 2,
    *[layer for filters in (128, 256, 512) for layer in block(filters, 2, True) + block(filters)],
    "global_avg_pool",
    ("affine", 1000),
]


@pytest.mark.parametrize(
    ("layers", "x_shape", "n_params", "multiply_adds"),
    [
        (LENET, (1, 1, 28, 28), 61_706, 416_520),
        (ALEXNET, (1, 3, 224, 224), 61_100_840, 714_188_480),  # torchvision's
        (GROUPED_ALEXNET, (1, 3, 227, 227), 60_965_224, 724_406_816),  # Caffe's
        (VGG16, (1, 3, 224, 224), 138_357_544, 15_470_264_320),
        (GOOGLENET, (1, 3, 224, 224), 6_998_552, 1_582_671_872),
        (RESNET18, (1, 3, 224, 224), 11_689_512, 1_814_073_344),
    ],
    ids=["LeNet-5", "AlexNet", "AlexNet in groups", "VGG-16", "GoogLeNet", "ResNet-18"],
)
def test_published_counts(layers, x_shape, n_params, multiply_adds):
    net = summarize(layers, x_shape)
    assert net.n_params == n_params
    assert net.flops == 2 * multiply_adds
    assert net.param_bytes == 4 * n_params
    assert net.out_shape == (1, 10 if layers is LENET else 1000)
    batch = summarize(layers, (16, *x_shape[1:]), "float64")
    assert (batch.n_params, batch.flops, batch.param_bytes) == (n_params, 32 * multiply_adds, 8 * n_params)
    assert batch.out_bytes == 32 * net.out_bytes


@pytest.mark.parametrize(
    ("layers", "size", "name", "field"),
    [
        (ALEXNET, 224, "pool5", 195),
        (GROUPED_ALEXNET, 227, "pool5", 195),
        (VGG16, 224, "pool5", 212),
        (RESNET18, 224, "relu17", 435),
        (VGG16, 224, "pool1", 6),
    ],
)
def test_published_receptive_fields(layers, size, name, field):
    """The published values of Araujo, Norris & Sim, 2019."""
    (layer,) = (layer for layer in summarize(layers, (1, 3, size, size)).layers if layer.name == name)
    assert [axis.size for axis in layer.receptive_field] == [field, field]
    assert layer.receptive_field[0].jump == (2 if name == "pool1" else 32)


def test_a_fully_connected_layer_sees_what_its_convolution_sees():
    """The layer of AlexNet sees all 6x6 units before it, which are 32 cells apart."""
    net = summarize(ALEXNET, (1, 3, 224, 224))
    last = net.layers[-1].receptive_field[0]
    assert last == net.receptive_field[1] and last.size == 195 + 5 * 32
    kernels = [
        (11, 4, 2),
        (3, 2, 0),
        (5, 1, 2),
        (3, 2, 0),
        *[(3, 1, 1)] * 3,
        (3, 2, 0),
        (6, 1, 0),
        (1, 1, 0),
        (1, 1, 0),
    ]
    assert last == receptive_field(kernels)
    for between in ("flatten", "global_avg_pool"):
        fields = [
            summarize([("conv", 4, 3, 2), *extra, ("affine", 5)], (1, 3, 21, 15)).receptive_field
            for extra in ([], [between])
        ]
        assert fields[0] == fields[1] and [field.size for field in fields[0]] == [21, 15]


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_against_a_net_that_is_run(rank, rng):
    layers = [
        ("conv", 6, (3, 2, 4)[:rank], {"stride": (2, 1, 1)[:rank], "pad": "same", "groups": 2}),
        ("batchnorm", {"eps": 1e-3}),
        ("leaky_relu", 0.1),
        ("max_pool", 3, 2, 1, {"ceil_mode": True}),
        ("conv", 5, 2, 1, [(1, 2)] * rank, 2, {"pad_mode": "reflect", "bias": False, "flip": True, "threads": 1}),
        ("groupnorm", 5),
        ("avg_pool", {"kernel_size": 2, "stride": 1, "count_include_pad": False}),
        ("affine", 7),
        "layernorm",
    ]
    x = rng.standard_normal((2, 4, *(12, 9, 10)[:rank]))
    net = summarize(layers, x.shape, np.float64)
    w = rng.standard_normal((6, 2, *(3, 2, 4)[:rank]))
    v = rng.standard_normal((5, 6, *(2,) * rank))
    outs = [fastconv.conv(x, w, stride=(2, 1, 1)[:rank], pad="same", groups=2)]
    outs += [outs[-1]] * 2
    outs.append(fastconv.max_pool_forward(outs[-1], kernel_size=3, stride=2, pad=1, ceil_mode=True)[0])
    outs.append(fastconv.conv(outs[-1], v, pad=[(1, 2)] * rank, dilation=2, pad_mode="reflect", flip=True))
    outs.append(outs[-1])
    outs.append(fastconv.avg_pool_forward(outs[-1], kernel_size=2, stride=1)[0])
    u = rng.standard_normal((outs[-1][0].size, 7))
    outs += [fastconv.affine_forward(outs[-1], u, None)[0]] * 2
    assert [layer.out_shape for layer in net.layers] == [out.shape for out in outs]
    assert [layer.out_bytes for layer in net.layers] == [out.nbytes for out in outs]
    assert [layer.n_params for layer in net.layers] == [w.size + 6, 12, 0, 0, v.size, 10, 0, u.size + 7, 14]
    assert [layer.param_bytes for layer in net.layers] == [8 * layer.n_params for layer in net.layers]
    assert net.layers[0].flops == 2 * outs[0].size * w[0].size
    assert net.layers[-2].flops == 2 * 2 * u.size
    assert all(len(layer.receptive_field) == rank for layer in net.layers)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_decoder_that_is_run(rank, rng):
    layers = [
        ("conv", 6, 3, 2, 1),
        ("conv_transpose", 4, (4, 3, 2)[:rank], (2, 3, 2)[:rank], 1, {"output_pad": 1, "groups": 2}),
        ("upsample", 2),
        ("lp_pool", 2, {"p": 3}),
        ("downsample", (3, 1, 2)[:rank]),
        ("conv", 3, 3, Fraction(2, 3), 1),
        ("conv_transpose", 2, 1, {"bias": False}),
    ]
    x = rng.standard_normal((2, 2, *(9, 8, 7)[:rank]))
    net = summarize(layers, x.shape)
    u = rng.standard_normal((6, 2, *(4, 3, 2)[:rank]))
    outs = [fastconv.conv(x, rng.standard_normal((6, 2, *(3,) * rank)), stride=2, pad=1)]
    outs.append(fastconv.conv_transpose(outs[-1], u, stride=(2, 3, 2)[:rank], pad=1, output_pad=1, groups=2))
    outs.append(fastconv.upsample(outs[-1], 2))
    outs.append(fastconv.lp_pool_forward(outs[-1], kernel_size=2, p=3)[0])
    outs.append(fastconv.downsample(outs[-1], (3, 1, 2)[:rank]))
    outs.append(fastconv.conv(outs[-1], rng.standard_normal((3, 4, *(3,) * rank)), stride=Fraction(2, 3), pad=1))
    outs.append(fastconv.conv_transpose(outs[-1], rng.standard_normal((3, 2, *(1,) * rank))))
    assert [layer.out_shape for layer in net.layers] == [out.shape for out in outs]
    assert net.layers[1].n_params == u.size + 4 and net.layers[-1].n_params == 6
    # It has as many multiply-adds as the convolution whose gradient it is.
    options = {"stride": (2, 3, 2)[:rank], "pad": 1, "groups": 2}
    assert net.layers[1].flops == fastconv.conv_geometry(outs[1].shape, u.shape, **options).flops
    assert [bool(layer.receptive_field) for layer in net.layers] == [True] + [False] * 6
    assert summarize([("conv", 2, 3), ("downsample", 2)], (1, 1, 8)).receptive_field == (ReceptiveField(3, 2, 1.5),)


def test_branches():
    net = summarize([("concat", [("conv", 2, 3, 1, 1)], [("conv", 3, 5, 1, 2)], []), "relu"], (1, 4, 9, 9))
    assert [layer.depth for layer in net.layers] == [1, 1, 0, 0]
    assert net.out_shape == (1, 9, 9, 9)
    assert net.receptive_field == (receptive_field([(5, 1, 2)]),) * 2
    # One branch sees to the left, the other to the right, so their join sees both sides.
    left, right = ("conv", 1, 3, {"pad": [(2, 0)]}), ("conv", 1, 3, {"pad": [(0, 2)]})
    net = summarize([("add", [left], [right])], (1, 1, 9))
    assert net.receptive_field[0].cells(4) == (2, 7)
    # Branches with different strides have no common field.
    net = summarize([("add", [("conv", 4, 1, 2, 4)], [("conv", 4, 3, 1, 1)]), ("conv", 2, 3)], (1, 1, 9))
    assert net.receptive_field == () and str(net).splitlines()[5].split()[-2:] == ["-", "-"]


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("kind", ["concat", "add"])
def test_branches_of_which_one_is_flattened(kind, order):
    """One branch sees one cell and the other sees all, so there is no common field, in either order of the branches."""
    branches = (["flatten"], [("affine", 16)])[::order]
    net = summarize([(kind, *branches), ("affine", 3)], (1, 1, 4, 4))
    assert [layer.receptive_field for layer in net.layers[-2:]] == [(), ()]
    net = summarize([(kind, [("affine", 16)], ["global_avg_pool", ("affine", 16)]), ("affine", 3)], (1, 1, 4, 4))
    assert [field.size for field in net.receptive_field] == [4, 4]


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("stride", [Fraction(1, 2), Fraction(2, 3), Fraction(3, 4), (Fraction(3, 2), 2)])
def test_operations_of_strides_below_1(stride, rank, rng):
    """In a convolution of ones, each multiply-add contributes 1, and products with inserted zeros contribute nothing."""
    shape = (2, 4, *(9, 8)[:rank])
    stride = stride[:rank] if isinstance(stride, tuple) else stride
    options = {"stride": stride, "groups": 2}
    net = summarize([("conv", 6, 3, options)], shape)
    assert net.flops == 2 * fastconv.conv(np.ones(shape), np.ones((6, 2, *(3,) * rank)), **options).sum()


def test_operations_of_a_stride_below_1_are_those_of_its_transposed_twin():
    net = summarize([("conv", 4, 3, Fraction(1, 2), "same")], (1, 3, 8, 8))
    twin = summarize([("conv_transpose", 4, 3, 2, 1, {"output_pad": 1})], (1, 3, 8, 8))
    assert net.out_shape == twin.out_shape and twin.flops == 13_824
    assert 13_824 - 2 * 12 * (8 * 3 * 2) <= net.flops <= 13_824  # cells that are cut off do not count
    # Mirrors use the upsampled grid, which has to be built.
    mirrored = summarize([("conv", 4, 3, Fraction(1, 2), "same", {"pad_mode": "reflect"})], (1, 3, 8, 8))
    assert mirrored.flops == 2 * 4 * 27 * 16 * 16


@pytest.mark.parametrize(("up", "stride"), [(2, 2), (4, 2), (3, 2), (2, 1), ((2, 1), (1, 3))])
def test_operations_after_upsampling(up, stride):
    """After upsampling, units read different numbers of cells, so they have no common receptive field."""
    shape, options = (2, 4, 9, 8), {"upsample": up, "stride": stride, "groups": 2}
    net = summarize([("conv", 6, 3, options), ("conv", 2, 1)], shape)
    out = fastconv.conv(np.ones(shape), np.ones((6, 2, 3, 3)), **options)
    assert net.layers[0].flops == 2 * out.sum() and net.layers[0].out_shape == out.shape
    assert net.layers[0].receptive_field == () and str(net).splitlines()[3].split()[-2:] == ["-", "-"]
    same = summarize([("conv", 4, 3, 2, 1, {"upsample": (1, 1)})], shape)
    assert same.layers == summarize([("conv", 4, 3, 2, 1)], shape).layers


@pytest.mark.parametrize("stride", [Fraction(2, 1), (Fraction(2), 2)])
def test_fractions_that_are_whole(stride):
    net, plain = (summarize([("conv", 4, 3, s, 1), "relu"], (1, 3, 8, 8)) for s in (stride, 2))
    assert net.layers == plain.layers and net.receptive_field == (receptive_field([(3, 2, 1)]),) * 2


def test_a_table_seeds_no_generator():
    np.random.seed(3)  # noqa: NPY002 - the global one, which dropout seeds
    first = np.random.random_sample()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    summarize([("dropout", 0.5, {"seed": 1})], (1, 4))
    assert np.random.random_sample() == first  # noqa: NPY002


def test_without_spatial_axes():
    net = summarize([("affine", 100), "relu", "batchnorm", ("affine", 10, {"bias": False})], (32, 784))
    assert net.n_params == 785 * 100 + 200 + 1000 and net.flops == 2 * 32 * (78_400 + 1000)
    assert net.receptive_field == () and net.out_shape == (32, 10)


def test_an_empty_net_and_an_empty_batch():
    net = summarize([], (2, 3, 8, 8))
    assert (net.out_shape, net.n_params, net.flops, net.out_bytes) == ((2, 3, 8, 8), 0, 0, 0)
    assert [field.size for field in net.receptive_field] == [1, 1]
    assert str(net).splitlines()[2].split() == ["input", "(2,", "3,", "8,", "8)"]
    assert summarize(LENET, (0, 1, 28, 28)).flops == 0


def test_table():
    text = str(summarize([*LENET, ("add", ["relu"], [])], (1, 1, 28, 28)))
    lines = text.splitlines()
    assert repr(summarize(LENET, (1, 1, 28, 28))) == str(summarize(LENET, (1, 1, 28, 28)))
    assert re.split(r"\s{2,}", lines[0]) == ["layer", "output shape", "parameters", "FLOPs", "receptive field", "jump"]
    assert re.split(r"\s{2,}", lines[3]) == ["C1", "(1, 6, 28, 28)", "156", "235,200", "5x5", "1x1"]
    assert [line.split()[0] for line in lines[3:9]] == ["C1", "tanh1", "S2", "conv2", "tanh2", "avg_pool2"]
    assert lines[-5].startswith("  relu1") and lines[-4].startswith("add1")
    assert lines[-2].split() == ["total", "61,706", "833,040"]
    # 6 maps of 28x28 twice and of 14x14; 16 maps of 10x10 twice and of 5x5 twice; 120 and 84 twice each; 10; and 2 for
    # add.
    values = 6 * (2 * 28**2 + 14**2) + 16 * (2 * 10**2 + 2 * 5**2) + 2 * (120 + 84) + 10 + 2 * 10
    assert lines[-1] == f"in float32: 246,824 bytes of parameters, {4 * values:,} bytes of outputs"
    assert all(line == line.rstrip() for line in lines)


X = (1, 4, 8, 8)


@pytest.mark.parametrize(
    ("layers", "x_shape", "error", "message"),
    [
        ("relu", X, TypeError, "layers must be a list of layers, got str"),
        (["relu", 5], X, TypeError, "layers[1] must be a name, a tuple such as ('conv', 64, 3, {'pad': 1}), or a dict such as {'kind': 'conv',"),
        ([()], X, TypeError, "layers[0] must be a name, a tuple such as ('conv', 64, 3, {'pad': 1}), or a dict such as {'kind': 'conv', 'filters': 64, 'kernel_size': 3, 'pad': 1}, got ()"),
        ([{"filters": 3}], X, TypeError, "layers[0] must be a name, a tuple such as ('conv', 64, 3, {'pad': 1}), or a dict such as {'kind': 'conv', 'filters': 64, 'kernel_size': 3, 'pad': 1}, got {'filters': 3}"),
        (["rely"], X, ValueError, "layers[0] has the unknown kind 'rely'; the kinds are conv, conv_transpose, upsample"),
        (
            [("conv", 3)],
            X,
            TypeError,
            "layers[0]: missing a required argument: 'kernel_size'; a layer of this kind is written as ('conv', filters, "
            "kernel_size, stride, pad, dilation, bias, {options by name})",
        ),
        ([("affine",)], X, TypeError, "layers[0]: missing a required argument: 'units'; a layer of this kind is written as ('affine', "),
        ([("relu", 1)], X, TypeError, "layers[0]: too many positional arguments; a layer of this kind is written as ('relu')"),
        ([("conv", 3, 3, 1, {"stride": 1})], X, TypeError, "layers[0]: multiple values for argument 'stride'"),
        ([("conv", 3, 3, {"pads": 1})], X, TypeError, "layers[0], conv: conv() got an unknown option 'pads'; known are"),
        ([("conv", 3, 9)], X, ValueError, "layers[0], conv: spatial axis 0: the kernel covers 9 cells but the padded"),
        ([("conv", 0, 3)], X, ValueError, "filters must be an int >= 1, got 0"),
        ([("conv", 3.0, 3)], X, TypeError, "filters must be an int >= 1, got 3.0"),
        ([("conv", 4, 3, {"groups": 3})], X, ValueError, "groups is 3, which must divide both the 4 channels of x"),
        ([("conv", 4, 3, {"bias": None})], X, TypeError, "bias must be True or False, got None"),
        ([("conv", 4, (3, 3, 3))], X, ValueError, "kernel_size has 3 values, (3, 3, 3), for 2 spatial axes"),
        (["flatten", ("conv", 4, 3)], X, ValueError, "layers[1], conv: the layer needs an input with spatial axes, got shape (1, 256)"),
        (["flatten", ("max_pool", 2)], X, ValueError, "layers[1], max_pool: the layer needs an input with spatial axes, got shape (1, 256)"),
        (["flatten", "global_avg_pool"], X, ValueError, "layers[1], global_avg_pool: the layer needs an input with spatial axes, got shape (1, 256)"),
        (["max_pool"], X, TypeError, "layers[0], max_pool: max_pool_forward() needs kernel_size"),
        ([("max_pool", 2, 2, 0, 1, 5)], X, TypeError, "at most 4 values may be positional (kernel_size"),
        ([("max_pool", 2, {"kernel_size": 2})], X, TypeError, "got 'kernel_size' both in pool_param and as a keyword"),
        ([("avg_pool", 9)], X, ValueError, "layers[0], avg_pool: spatial axis 0: the kernel covers 9 cells"),
        ([("groupnorm", 3)], X, ValueError, "groupnorm: G is 3, which does not divide the 4 channels of x (1, 4, 8, 8)"),
        ([("groupnorm", 2.0)], X, TypeError, "layers[0], groupnorm: G must be an int >= 1, got 2.0"),
        ([("groupnorm", 2, {"eps": -3})], X, ValueError, "layers[0], groupnorm: eps must be a finite number >= 0"),
        ([("batchnorm", {"eps": -3})], X, ValueError, "layers[0], batchnorm: eps must be a finite number >= 0, got -3"),
        ([("batchnorm", {"momentum": 2})], X, ValueError, "momentum must be a finite number >= 0 and <= 1, got 2"),
        ([("layernorm", {"eps": "0"})], X, TypeError, "layers[0], layernorm: eps must be a finite number >= 0, got '0'"),
        ([("leaky_relu", "foo")], X, TypeError, "layers[0], leaky_relu: slope must be a finite number, got 'foo'"),
        ([("dropout", 7)], X, ValueError, "layers[0], dropout: p "),
        ([("dropout", {"mode": "no"})], X, ValueError, "layers[0], dropout: mode in dropout_param is 'no'"),
        ([("dropout", {"seed": 1.5})], X, TypeError, "layers[0], dropout: seed must be an int >= 0 and <= 4294967295, got 1.5"),
        ([("lp_pool", 2, {"p": 0})], X, ValueError, "layers[0], lp_pool: p "),
        ([("avg_pool", 2, {"count_include_pad": 1})], X, TypeError, "layers[0], avg_pool: count_include_pad must be"),
        ([("conv", 4, 3, {"algorithm": "no"})], X, ValueError, "layers[0], conv: algorithm is 'no'; legal are"),
        ([("conv_transpose", 4, 3, {"threads": 0})], X, ValueError, "layers[0], conv_transpose: threads "),
        ([("lrn", 0)], X, ValueError, "layers[0], lrn: size must be an int >= 1 and <= "),
        ([("lrn", 5, "1")], X, TypeError, "layers[0], lrn: alpha must be a finite number, got '1'"),
        (["flatten", "lrn"], X, ValueError, "layers[1], lrn: the layer needs an input with spatial axes, got shape (1, 256)"),
        (["flatten", "spatial_batchnorm"], X, ValueError, "layers[1], spatial_batchnorm: the layer needs an input with spatial axes, got shape (1, 256)"),
        (["flatten", ("spatial_groupnorm", 2)], X, ValueError, "layers[1], spatial_groupnorm: the layer needs an input with spatial axes, got shape (1, 256)"),
        ([("conv_transpose", 3, 3, {"groups": 2})], X, ValueError, "groups must divide the number of filters, 3, got 2"),
        ([("conv_transpose", 4, 3, 2, {"output_pad": 2})], X, ValueError, "output_pad 2 must be smaller than the larger"),
        ([("upsample", 0)], X, ValueError, "layers[0], upsample: factor must be an int >= 1, got 0"),
        ([("affine", 0)], X, ValueError, "units must be an int >= 1, got 0"),
        ([("affine", 2**62)], (4, 4), ValueError, "the output of affine1 of shape (4, 4611686018427387904)"),
        ([("relu", {"name": 3})], X, TypeError, "name of a layer must be a str, got 3"),
        ([("add",)], X, TypeError, "layers[0]: add must have one or more branches, which are lists of layers, and no option but name, got 0"),
        ([("add", [], {"axis": 1})], X, TypeError, "got 1 branches and the options axis"),
        ([("add", "relu")], X, TypeError, "layers[0][1] must be a list of layers, got str"),
        (
            [("add", [("conv", 4, 3)], [])],
            X,
            ValueError,
            "layers[0]: the output shapes of the branches of add must be equal, got (1, 4, 6, 6), (1, 4, 8, 8)",
        ),
        ([("concat", ["relu"], [("max_pool", 2)])], X, ValueError, "must be equal except for the number of channels"),
        ([("concat", [], [("conv", 4, 9)])], X, ValueError, "layers[0][2][0], conv: spatial axis 0"),
        ([], (3,), ValueError, "x_shape must be (N, D) or (N, C, *spatial), with all sizes except N at least 1, got (3,)"),
        ([], (1, 0, 8), ValueError, "at least 1, got (1, 0, 8)"),
        ([], np.ones(3), TypeError, "x_shape must be a tuple of ints, got ndarray; pass x.shape"),
    ],
)  # fmt: skip
def test_refusals(layers, x_shape, error, message):
    with pytest.raises(error, match=re.escape(message)):
        summarize(layers, x_shape)


def test_dtype_is_checked():
    with pytest.raises(TypeError, match="dtype has dtype complex64"):
        summarize([], X, "complex64")
