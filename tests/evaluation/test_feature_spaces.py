"""Spaces by name: published networks against their peers, a user's own module, ONNX; and what each refuses."""

import shutil
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from expressivegan.errors import CheckpointError, ExpressiveGANError, InputError, OfflineError
from expressivegan.evaluation.features import (
    SPACES,
    JudgeRecipe,
    SelfSupervisedRecipe,
    cached_features,
    open_space,
)
from expressivegan.evaluation.features.pretrained import InceptionV3, open_xrv

NAME = "densenet121-res224-all"


def pictures(count: int, side: int, seed: int = 0) -> np.ndarray:
    """Smooth uint8 images."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 6, 6)).astype(np.float32)
    x = nn.functional.interpolate(torch.from_numpy(coarse)[:, None], (side, side), mode="bilinear")
    return x[:, 0].numpy().astype(np.uint8)


def one_sentence(error: BaseException) -> str:
    text = str(error)
    assert "\n" not in text
    assert len(text) < 700
    return text


def refuse(*_: object, **__: object) -> None:
    raise ConnectionError("Name or service not known")


# ---------------------------------------------------------------------------------------------------------------------
# Names


@pytest.mark.parametrize(
    "name", ["", "judges", "judge:1", "xrv", "xrv:", "onnx:", "module:", "module:a", "a:b:c", "fid x:y"]
)
def test_unknown_names_are_listed(name: str) -> None:
    with pytest.raises(InputError) as caught:
        open_space(name)
    assert one_sentence(caught.value) == f"features (={name!r}) must be one of {', '.join(SPACES)}"


def test_fitted_spaces_by_name(tmp_path: Path) -> None:
    images, labels, calls = pictures(8, 16), np.arange(8) % 2, []
    recipes: dict[str, Any] = {
        "judge_recipe": JudgeRecipe(resolution=16, epochs=1, batch=4),
        "selfsup_recipe": SelfSupervisedRecipe(resolution=16, epochs=1, batch=8, projector=8),
    }
    found = {}
    for name in ("judge", "selfsup"):
        for seed in (0, 1, 0):
            space = open_space(
                name, images=images, labels=labels, classes=("A", "B"), cache=tmp_path, seed=seed,
                progress=lambda done, total: calls.append((done, total)), **recipes,
            )  # fmt: skip
            assert (space.name, space.features(images).shape) == (name, (8, 512))
            assert found.setdefault((name, seed), space.identity) == space.identity
    assert calls == [(1, 2), (2, 2)] * 2 + [(1, 1)] * 2
    assert len(set(found.values())) == 4
    with pytest.raises(InputError, match=r"features \(='selfsup'\) are fitted on the judge group"):
        open_space("selfsup")
    with pytest.raises(InputError, match=r"features \(='judge'\) need labels and classes"):
        open_space("judge", images=images)


# ---------------------------------------------------------------------------------------------------------------------
# torchxrayvision


@pytest.fixture(scope="module")
def xrv() -> types.ModuleType:
    with warnings.catch_warnings():  # the library silences every warning of the process
        warnings.simplefilter("ignore")
        import torchxrayvision
    return torchxrayvision


def test_xrv_features_are_that_librarys_own(xrv: types.ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = xrv.models.DenseNet(num_classes=18).eval()
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.1)
            m.running_var.uniform_(0.5, 2.0)
    torch.save(module, tmp_path / str(xrv.models.model_urls[NAME]["weights_url"]).rsplit("/", 1)[1])
    space, images = open_xrv(NAME, tmp_path), pictures(2, 224)
    found = space.features(images)
    with torch.inference_mode():
        peer = module.features2(torch.from_numpy(xrv.utils.normalize(images, 255))[:, None].float()).numpy()
        naive = module.features2(torch.from_numpy(images / 127.5 - 1)[:, None].float()).numpy()
    assert (space.name, found.shape) == (f"xrv:{NAME}", (2, 1024))
    np.testing.assert_allclose(found, peer, rtol=1e-3, atol=1e-4 * np.abs(peer).max())
    assert np.abs(naive - peer).max() > 0.1 * np.abs(peer).max()  # [-1, 1] would be noise to it
    assert space.features(pictures(1, 32)).shape == (1, 1024)


def test_xrv_offline_and_unknown(xrv: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xrv.utils, "download", refuse)
    monkeypatch.setattr(xrv.utils, "get_cache_dir", lambda: str(tmp_path))
    with pytest.raises(OfflineError, match=f"xrv:{NAME}.*save https://.* as {tmp_path}"):
        open_space(f"xrv:{NAME}")
    with pytest.raises(InputError, match=r"xrv:nothing.*must be one of"):
        open_space("xrv:nothing")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------------------------------
# Inception


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A file as torch-fidelity publishes it, with weights drawn here, and torch-fidelity's network with them."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3 as Peer

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    state = {}
    for key, value in InceptionV3().body.state_dict().items():
        if key.endswith("running_mean"):
            value = torch.randn_like(value) * 0.1
        elif key.endswith("running_var"):
            value = torch.rand_like(value) * 0.1 + 0.02
        state[key] = value
    state |= {"fc.weight": torch.randn(1008, 2048), "fc.bias": torch.zeros(1008)}
    torch.save(state, path)
    return path, Peer("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path))


def test_inception_is_torch_fidelitys(inception: tuple[Path, Any], tmp_path: Path) -> None:
    path, peer = inception
    images = pictures(2, 299)
    space = open_space(f"inception:{path}")
    found = space.features(images)
    (expected,) = peer(torch.from_numpy(images)[:, None].expand(-1, 3, -1, -1))
    assert (space.name, found.shape) == ("inception", (2, 2048))
    assert expected.std() > 0.01
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    # the same weights as safetensors are the same space
    state = torch.load(path, weights_only=True)
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "weights.safetensors")
    assert open_space(f"inception:{tmp_path / 'weights.safetensors'}").identity == space.identity


def test_inception_from_torchs_hub_folder(
    inception: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    target = tmp_path / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    with pytest.raises(OfflineError) as caught:
        open_space("inception")
    assert "ConnectionError" in one_sentence(caught.value)
    assert f"save https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{target.name} as {target}" in str(
        caught.value
    )
    assert not list(target.parent.iterdir())
    shutil.copy(inception[0], target)
    assert open_space("inception").name == "inception"


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_inception_refuses_other_files(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    torch.save({"fc": Evil(tmp_path / "owned")}, tmp_path / "evil.pth")
    (tmp_path / "text.pth").write_text("weights")
    (tmp_path / "text.safetensors").write_text("weights")
    for name in ("other.pth", "evil.pth", "text.pth", "text.safetensors"):
        with pytest.raises(CheckpointError, match="are not those of torch-fidelity") as caught:
            open_space(f"inception:{tmp_path / name}")
        one_sentence(caught.value)
    assert not (tmp_path / "owned").exists()
    with pytest.raises(CheckpointError, match="is not a file"):
        open_space(f"inception:{tmp_path / 'absent.pth'}")


# ---------------------------------------------------------------------------------------------------------------------
# RAD-DINO


class Means(nn.Module):
    """Stands for a ViT: means of four stripes."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, pixel_values: Tensor) -> Any:
        assert pixel_values.shape[1:] == (3, 518, 518)
        means = torch.cat([part.mean((1, 2, 3), keepdim=True)[..., 0, 0] for part in pixel_values.split(130, 2)], 1)
        return types.SimpleNamespace(pooler_output=means * self.scale)


def test_rad_dino(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []
    lacking = ["embeddings.mask_token"]

    def from_pretrained(source: str, **options: Any) -> tuple[nn.Module, dict[str, list[str]]]:
        asked.append((source, options))
        if source == "microsoft/rad-dino":
            raise OSError("offline")
        return Means(), {"missing_keys": lacking}

    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "transformers", None)
        with pytest.raises(InputError, match="pip install transformers"):
            open_space("rad-dino")
    fake = types.ModuleType("transformers")
    fake.Dinov2Model = types.SimpleNamespace(from_pretrained=from_pretrained)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformers", fake)
    with pytest.raises(OfflineError, match=r"hf download microsoft/rad-dino.*rad-dino:PATH") as caught:
        open_space("rad-dino")
    one_sentence(caught.value)
    with pytest.raises(CheckpointError, match=r"holds no config.json and no model.safetensors"):
        open_space(f"rad-dino:{tmp_path}")
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    space = open_space(f"rad-dino:{tmp_path}")
    black = space.features(np.zeros((1, 37, 37), np.uint8))
    np.testing.assert_allclose(black, np.full((1, 4), -0.5307 / 0.2583), rtol=1e-5)
    assert all(options["use_safetensors"] for _, options in asked)
    assert asked[-1][1]["local_files_only"]
    lacking.append("encoder.layer.0.weight")  # what that library would fill with random numbers
    with pytest.raises(CheckpointError, match=r"lack 1 tensors of a DINOv2 network, encoder.layer.0.weight"):
        open_space(f"rad-dino:{tmp_path}")


# ---------------------------------------------------------------------------------------------------------------------
# A user's own module

OWN = """
import numpy as np, torch
from torch import nn

def rows(images):
    assert images.dtype == np.uint8
    return images.reshape(len(images), -1)[:, :3] / 255.0

def versioned(images):
    return rows(images)
versioned.version = "1"

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
    def forward(self, x):
        assert x.ndim == 4 and x.shape[1] == 1 and x.min() >= -1
        return self.norm(self.conv(x)).mean((2, 3))
torch.manual_seed(0)
net = Net()

def nan(images): return np.where(np.arange(len(images))[:, None] == 1, np.nan, rows(images))
def huge(images): return rows(images) * 1e300
def flat(images): return rows(images)[:, 0]
def fewer(images): return rows(images)[:-1]
def whole(images): return images.reshape(len(images), -1)
def words(images): return np.array([["a"]] * len(images))
def nothing(images): return None
def fails(images): raise KeyError("two\\nlines")
def centred(images): return rows(images) - rows(images).mean(0)
def spoils(images):
    images[:] = 0
    return rows(images)
number = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a module of the user's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_features.py").write_text(OWN)
    monkeypatch.delitem(sys.modules, "own_features", raising=False)
    return tmp_path


def test_own_function_and_network(own: Path) -> None:
    images, before = pictures(5, 8), list(sys.path)
    space = open_space("own_features:rows")
    assert sys.path == before
    assert (space.name, space.identity) == ("module:own_features:rows", None)
    np.testing.assert_allclose(space.features(images), images.reshape(5, -1)[:, :3] / 255, rtol=1e-6)
    net = open_space("module:own_features:net")
    found = net.features(images)
    assert (found.shape, found.dtype) == ((5, 4), np.float32)
    np.testing.assert_allclose(net.features(images[2:3]), found[2:3], rtol=1e-5)  # in evaluation mode
    assert open_space("own_features:versioned").identity is not None
    kept = images.copy()
    open_space("own_features:spoils").features(images)
    np.testing.assert_array_equal(images, kept)


def test_own_networks_identity_follows_weights_and_source(own: Path) -> None:
    def identity() -> str | None:
        sys.modules.pop("own_features", None)
        return open_space("own_features:net").identity

    first = identity()
    assert first is not None
    assert identity() == first
    (own / "own_features.py").write_text(OWN.replace("manual_seed(0)", "manual_seed(1)"))
    weights = identity()
    (own / "own_features.py").write_text(OWN.replace(".mean((2, 3))", ".amax((2, 3)) # other"))
    assert len({first, weights, identity()}) == 3


@pytest.mark.parametrize(
    ("attribute", "said"),
    [
        ("nan", "hold NaN, infinity or a value beyond float32 for 1 of 4 images, first for image 1"),
        ("huge", "hold NaN, infinity or a value beyond float32 for 4 of 4"),
        ("flat", r"shape \(4, d\), one row an image, not float64 \(4,\)"),
        ("fewer", r"shape \(4, d\), one row an image, not float64 \(3, 3\)"),
        ("whole", r"must be floating point .* not uint8 \(4, 64\)"),
        ("words", "must be floating point .* not <U1"),
        ("nothing", "must be an array or a tensor, .* not NoneType"),
        ("fails", "failed on images of shape .* with KeyError: 'two.*lines'; they must take"),
        ("centred", "must depend on their own image alone"),
    ],
)
def test_own_functions_that_misbehave(own: Path, attribute: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        open_space(f"own_features:{attribute}").features(pictures(4, 8) // 2 + 100)
    assert f"module:own_features:{attribute}" in one_sentence(caught.value)


def test_own_modules_that_do_not_load(own: Path) -> None:
    (own / "broken_features.py").write_text("import sys; sys.exit('no\\nthing')")
    for name, said in {
        "module:no_such_module:f": "'no_such_module' cannot be imported .*ModuleNotFoundError.*judge, selfsup",
        "broken_features:f": "'broken_features' cannot be imported .*SystemExit: no thing",
        "own_features:rowz": "has no 'rowz'; it has .*rows",
        "own_features:Net": "not the class Net; add",
        "own_features:number": "must be a function or an instance of torch.nn.Module, not int",
    }.items():
        with pytest.raises(InputError, match=said) as caught:
            open_space(name)
        one_sentence(caught.value)
    with pytest.raises(InputError, match="non-empty uint8"):
        open_space("own_features:rows").features(pictures(2, 8) / 255)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------------------------
# ONNX


def write_onnx(path: Path, shape: list[Any], kind: str = "FLOAT", outside: bool = False) -> Path:
    """Per channel: mean and 2 * mean (N, C) next to each other, minus 0.25."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    two = numpy_helper.from_array(np.array([2], np.float32), "two")
    bias = numpy_helper.from_array(np.array([-0.25], np.float32), "bias")
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Mul", ["flat", "two"], ["double"]),
        helper.make_node("Concat", ["flat", "double"], ["both"], axis=1),
        helper.make_node("Add", ["both", "bias"], ["y"]),
    ]
    element = getattr(TensorProto, kind)
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", element, shape)],
        [helper.make_tensor_value_info("y", element, [shape[0], None])], [two, bias],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    if outside:
        onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    else:
        onnx.save(model, path)
    return path


@pytest.mark.parametrize("shape", [["n", 1, "h", "w"], ["n", 3, 16, 16], [3, 3, 16, 16], [1, 1, None, None]])
def test_onnx(tmp_path: Path, shape: list[Any]) -> None:
    images = np.stack([np.full((8, 8), v, np.uint8) for v in (0, 255, 102, 153, 51)])
    space = open_space(f"onnx:{write_onnx(tmp_path / 'net.onnx', shape)}")
    mean = np.array([-1, 1, -0.2, 0.2, -0.6])[:, None].repeat(shape[1], 1)
    assert space.name == "onnx:net.onnx"
    np.testing.assert_allclose(space.features(images), np.concatenate([mean, 2 * mean], 1) - 0.25, atol=1e-5)
    np.testing.assert_array_equal(cached_features(space, images, tmp_path / "c"), space.features(images))


def test_onnx_identity_follows_the_weights_beside_it(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "net.onnx", ["n", 1, "h", "w"], outside=True)
    first = open_space(f"onnx:{path}").identity
    assert first is not None
    assert open_space(f"onnx:{path}").identity == first
    weights = bytearray((tmp_path / "w.bin").read_bytes())
    weights[:4] = np.float32(3).tobytes()
    (tmp_path / "w.bin").write_bytes(weights)
    assert open_space(f"onnx:{path}").identity != first


def test_onnx_that_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.onnx").write_text("not a graph")
    write_onnx(tmp_path / "two.onnx", ["n", 2, 8, 8])
    write_onnx(tmp_path / "wide.onnx", ["n", 1, 8, 16])
    write_onnx(tmp_path / "flat.onnx", ["n", 1, 8])
    cases: dict[str, tuple[type[ExpressiveGANError], str]] = {
        "absent.onnx": (CheckpointError, "does not exist"),
        "text.onnx": (CheckpointError, "cannot be opened by onnxruntime"),
        "two.onnx": (InputError, r"must have one input, .* not x tensor\(float\) \['n', 2, 8, 8\]"),
        "wide.onnx": (InputError, "must have one input"),
        "flat.onnx": (InputError, "must have one input"),
    }
    for name, (kind, said) in cases.items():
        with pytest.raises(kind, match=said) as caught:
            open_space(f"onnx:{tmp_path / name}")
        assert name in one_sentence(caught.value)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"pip install expressivegan\[onnx\]"):
        open_space(f"onnx:{tmp_path / 'two.onnx'}")
