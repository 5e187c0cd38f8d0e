"""Every published network and every printed figure."""

import statistics
from itertools import groupby

import pytest
import torch
from checks import check_counts, layers

import nas
from nas.architecture.catalogue import by_paper, network_names, space_names
from nas.architecture.reported import CLASSES, Printed, read_all, read_table, table_names
from nas.costs.analytic import cost
from nas.driver.compared import Trained, compare
from nas.files import parse_yaml

CONTAINED = {
    "efficientnet_lite": lambda name: name == "efficientnet-lite0",
    "mobilenet_v2": lambda name: name == "mobilenetv2",
    "inverted_residual": lambda name: name.startswith("han-") or name == "mobilenetv2-cifar",
    "pydmobilenet": lambda name: name.startswith(("resnet-", "mobilenet-", "pydmobilenet-")),
    "se_condconv": lambda name: name.startswith("kuo-"),
    "micro": lambda name: False,
    "mobilenet_v1": lambda name: name.startswith("mobilenetv1-") and name != "mobilenetv1-full-conv",
}

# From the papers and issue 3, not from our code: name -> (params, MACs), as printed, in the digits that are printed.
PARAMS = {
    "mobilenetv2-cifar": 2_296_922,
    "han-a": 1_420_154,
    "han-b": 1_636_442,
    "han-c": 2_027_258,
    "han-d": 916_634,
    "han-e": 889_946,
    "han-f": 1_250_138,
    "han-g": 1_131_770,
}
HAN_KILOBYTES = dict(zip("abcdefg", (5845, 6727, 8295, 3804, 3691, 5162, 4672), strict=True))
MILLIONS = {  # MACs, params, relative tolerance
    "mobilenetv1-1-224": (569, 4.2, 0.01),
    "mobilenetv1-0.75-224": (325, 2.6, 0.01),
    "mobilenetv1-0.5-224": (149, 1.3, 0.03),
    "mobilenetv1-0.25-224": (41, 0.47, 0.01),
    "mobilenetv1-1-192": (418, 4.2, 0.01),
    "mobilenetv1-1-160": (290, 4.2, 0.01),
    "mobilenetv1-1-128": (186, 4.2, 0.01),
    "mobilenetv1-0.5-160": (76, 1.32, 0.01),
    "mobilenetv1-full-conv": (4866, 29.3, 0.001),
    "mobilenetv1-shallow": (307, 2.9, 0.01),
    "mobilenetv2": (300, 3.5, 0.01),
    "shufflenet-1.5": (292, 3.4, 0.03),
    "shufflenet-2": (524, 5.4, 0.03),
    "squeezenet": (819, 1.248424, 0.001),  # torchvision's count of parameters: 1,248,424
    "xception": (8357, 22.855952, 0.001),  # Keras: 22,855,952 trainable parameters
}


SPACES = {name: nas.load_space(name) for name in space_names()}


def classes_of(name: str) -> int:
    return next((CLASSES[row.dataset] for row in read_all() if row.name == name), 1000)


@pytest.mark.parametrize("name", network_names())
def test_published_network(name: str) -> None:
    architecture = nas.load(name)
    assert architecture.name == name
    assert architecture.source
    assert nas.Architecture.from_dict(parse_yaml(architecture.to_yaml(), name)).to_dict() == architecture.to_dict()
    assert nas.Architecture.from_dict({"name": name, **architecture.canonical()}).id == architecture.id
    num_classes = classes_of(name)
    check_counts(architecture, num_classes)

    for space in SPACES.values():
        claimed = CONTAINED[space.name](name)
        assert space.contains(architecture) == claimed
        if claimed:
            assert space.architecture(space.parameters(architecture)).id == architecture.id

    counted = cost(architecture, num_classes)
    if name in PARAMS:
        assert counted.params == PARAMS[name]
    if name in MILLIONS:
        macs, params, tolerance = MILLIONS[name]
        assert counted.macs / 1e6 == pytest.approx(macs, rel=tolerance)
        assert counted.params / 1e6 == pytest.approx(params, rel=max(tolerance, 0.03))

    resolution = architecture.input.resolution
    with torch.device("meta" if counted.macs > 1e9 else "cpu"), torch.no_grad():
        logits = nas.build(architecture, num_classes).eval()(
            torch.rand(1, architecture.input.channels, resolution, resolution)
        )
    assert logits.shape == (1, num_classes)
    assert logits.is_meta or torch.isfinite(logits).all()


@pytest.mark.parametrize("row", [row for row in read_all() if row.name], ids=lambda row: row.source)
def test_computed_columns_are_current_and_differences_are_explained(row: Printed) -> None:
    counted = cost(nas.load(row.name), CLASSES[row.dataset])
    assert (row.computed_params, row.computed_macs, row.computed_size_bytes) == (
        counted.params,
        counted.macs,
        counted.size_bytes,
    )
    if row.paper == "Hoang and Jo":
        ten = cost(nas.load(row.name), 10)
        assert row.params == pytest.approx(ten.params, abs=1000)
        assert row.macs == pytest.approx(ten.macs, rel=0.17)
    elif row.paper == "Han and Kwon":
        assert row.note or row.size_bytes == pytest.approx(counted.size_bytes + 74_000, abs=2000)
    elif row.params is not None and row.macs is not None:
        near = abs(row.macs - counted.macs) < 1e6 and abs(row.params - counted.params) < 0.05e6
        assert row.note or near


def test_networks_by_paper() -> None:
    papers = by_paper()
    assert {paper: len(networks) for paper, networks in papers.items()} == {
        "Han and Kwon": 8,
        "Hoang and Jo": 22,
        "Kuo": 3,
        "lecture": 24,
        "EfficientNet-Lite": 1,
    }
    assert {row.paper for row in read_all()} == set(papers)
    assert nas.load("mobilenetv1-0.5").name == "mobilenetv1-0.5-224"


@pytest.mark.parametrize("letter", HAN_KILOBYTES)
def test_han_model_size(letter: str) -> None:
    size = cost(nas.load(f"han-{letter}"), 10).size_bytes
    assert size / 1000 + 74 == pytest.approx(HAN_KILOBYTES[letter], abs=2)


def test_every_network_of_hoangs_table3() -> None:
    names = {row.name for row in read_table("hoang-table3") if row.name}
    assert len(names) == 22
    assert names == {name for name in network_names() if CONTAINED["pydmobilenet"](name)}


def test_kuo_table4_row_by_row() -> None:
    architecture = nas.load("kuo-standard")
    blocks = []
    for _, placed in groupby(layers(architecture, 100), key=lambda item: (item.part, item.block)):
        convolutions = [item.layer for item in placed if item.layer.kind in ("conv", "depthwise")]
        blocks.append((sum(layer.macs for layer in convolutions), sum(layer.params for layer in convolutions)))
    *rows, total = read_table("kuo-table4")
    start = 0
    for row in rows[:-1]:
        end = start + int(row.other["repeats"])
        macs, params = (sum(block[i] for block in blocks[start:end]) for i in (0, 1))
        assert (macs, params) == (int(row.other["conv_macs"]), int(row.other["conv_params"])), row.row
        start = end
    assert start == len(blocks)
    counted = cost(architecture, 100)
    assert (counted.conv_macs, counted.conv_params) == (193_770_304, 1_874_512)
    assert int(total.other["conv_macs"]) == counted.conv_macs


def test_lecture_table2_shares_per_layer_type() -> None:
    weights = [item.layer for item in layers(nas.load("mobilenetv1-1-224"), 1000) if item.layer.kind != "norm"]
    kinds = {
        "Conv 1x1": ("conv", 1),
        "Conv DW 3x3": ("depthwise", 3),
        "Conv 3x3": ("conv", 3),
        "Fully Connected": ("linear", 1),
    }
    for row in read_table("lecture-table2"):
        group = [layer for layer in weights if (layer.kind, layer.kernel) == kinds[row.row]]
        macs = sum(layer.macs for layer in group) / sum(layer.macs for layer in weights)
        params = sum(layer.params for layer in group) / sum(layer.params for layer in weights)
        assert float(row.other["computed_macs_share"]) == pytest.approx(macs, abs=1e-6)
        assert float(row.other["params_share"]) == pytest.approx(params, abs=2e-4)
        if "misprint" not in row.note:
            assert float(row.other["macs_share"]) == pytest.approx(macs, abs=1e-4)


def test_han_table4_follows_from_its_own_figures() -> None:
    table = compare(
        [nas.load(name) for name in ("mobilenetv2-cifar", *(f"han-{c}" for c in "abcdefg"))], dataset="cifar10"
    )
    for row, (_, ours) in zip(read_table("han-table4"), table.iterrows(), strict=True):
        assert ours["accuracy_per_size"] == pytest.approx(float(row.other["accuracy_per_size"]), abs=0.006)
        assert ours["time_per_size"] == pytest.approx(float(row.other["time_per_size"]), abs=0.006)


def test_every_table_reads() -> None:
    assert len(table_names()) == 19
    for row in read_all():
        assert row.paper and row.table and row.row
        assert row.accuracy is None or 0 < row.accuracy < 1
    accuracies = [row.accuracy for row in read_table("hoang-table3") if row.dataset == "cifar10" and row.name]
    assert statistics.mean(accuracies) == pytest.approx(1 - 0.0644, abs=0.002)


def test_an_unknown_table_is_named() -> None:
    with pytest.raises(nas.UserError, match="unknown table 'han-table9'; one of: efficientnet-lite, han-table3"):
        read_table("han-table9")


def test_a_network_that_no_paper_prints_has_a_row_too() -> None:
    space = nas.load_space("inverted_residual")
    architecture = space.sample(0)
    table = compare([Trained(architecture, 0.9, images=1_000), nas.load("han-e")], dataset="cifar10")
    assert table["name"].tolist() == ["inverted_residual", "han-e"]
    assert table["dataset"].tolist() == ["", "cifar10"]  # whose figures are printed; the other was trained on its own
    assert table["accuracy_per_size"].notna().all()
    assert table["printed_accuracy"].tolist()[1] == 0.9177
