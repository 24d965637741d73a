"""What ONNX Runtime computes of the file is what we compute, for any batch size."""

import pytest

from simclr_jax.weights import exports, torch_exports
from support.networks import NETWORKS, exported, images_of

for package in ("torch", "onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package, reason="needs simclr_jax[onnx]")
from simclr_jax.weights import onnx_graph, simclr_torch  # noqa: E402


@pytest.fixture(autouse=True)
def blocks(monkeypatch):
    """The tests' small networks, for PyTorch too."""
    monkeypatch.setitem(simclr_torch.BLOCKS, 10, (False, (1, 1, 1, 1)))
    monkeypatch.setitem(simclr_torch.BLOCKS, 14, (True, (1, 1, 1, 1)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"), [("bottleneck", 71), ("sk", 71), ("se", 64), ("five-channels", 16)]
)
def test_onnx_runtime_computes_the_same_for_any_batch(name, size, tmp_path):
    network = exported(NETWORKS[name], size)
    images = images_of(network, 3)
    found = torch_exports.onnx(network, tmp_path, images)
    ours, _ = exports.reference(network.model, network.variables, images)
    assert set(found) == {"h", "z"} | ({"logits"} if "classes" in NETWORKS[name] else set())
    assert exports.difference(ours, found) < 2e-6
    alone = onnx_graph.run(tmp_path / "model.onnx", images[:1].transpose(0, 3, 1, 2))
    assert exports.difference({k: x[:1] for k, x in ours.items()}, alone) < 2e-6


@pytest.mark.slow
def test_the_file_says_how_images_are_prepared(tmp_path):
    import onnx

    network = exported(NETWORKS["on-head1"], 16)
    images = images_of(network)
    found = torch_exports.onnx(network, tmp_path, images)
    assert exports.difference(exports.reference(*network[:2], images)[0], found) < 2e-6
    model = onnx.load(tmp_path / "model.onnx")
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert about["preprocessing"] == exports.preprocessing(network)
    assert (about["image_size"], about["layout"], about["depth"]) == ("16", "NCHW", "10")
    (taken,) = model.graph.input
    dims = taken.type.tensor_type.shape.dim
    assert taken.name == "images"
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", 3, 16, 16]
    assert [output.name for output in model.graph.output] == ["h", "z", "logits"]
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx"}
