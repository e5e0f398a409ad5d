"""mean(CAM_k) + b_k = logit_k on every backbone, and no file that a user hands us is unpickled."""

import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from expressivegan.checkpoint import save_model
from expressivegan.errors import CheckpointError, InputError, OfflineError
from expressivegan.images import to_xrv
from expressivegan.teacher import CXR_CAM_Teacher, open_teacher
from expressivegan.teacher.backbone import DenseNet121, load_xrv, smooth, xrv_labels
from expressivegan.training.guidance import fold_norms
from tiny import pictures, tiny_teacher

NAME = "densenet121-res224-all"


@pytest.fixture(scope="module")
def xrv() -> Iterator[ModuleType]:
    with warnings.catch_warnings():  # the library silences every warning of the process
        warnings.simplefilter("ignore")
        import torchxrayvision

    return torchxrayvision


def official_name(xrv: ModuleType) -> str:
    return str(xrv.models.model_urls[NAME]["weights_url"]).rsplit("/", 1)[1]


@pytest.fixture(scope="module")
def official(xrv: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A file as the library publishes it, a pickled module, and that module."""
    torch.manual_seed(0)
    module = xrv.models.DenseNet(num_classes=18)
    for m in module.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.1)
            m.running_var.uniform_(0.5, 2.0)
    module.eval()
    path = tmp_path_factory.mktemp("xrv") / official_name(xrv)
    torch.save(module, path)
    return path, module


@pytest.fixture(scope="module")
def folder(official: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder with the converted file."""
    found = tmp_path_factory.mktemp("cache")
    shutil.copy(official[0], found)
    load_xrv(NAME, cache_dir=found)
    return found


@pytest.fixture
def no_download(xrv: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(xrv.utils, "download", refuse)


def exact(teacher: CXR_CAM_Teacher, side: int) -> None:
    with torch.no_grad():
        x = pictures(3, side)
        cams, logits = teacher.raw_cams(x)
        bias = teacher.backbone.classifier.bias
        assert bias is not None
        assert torch.allclose(cams.mean(dim=(2, 3)) + bias, logits, atol=1e-4, rtol=1e-5)
        assert torch.allclose(logits, teacher.backbone(x), atol=1e-4, rtol=1e-4)
        assert teacher.backbone.features(x).min() >= 0
        assert logits.std() > 1e-4


@pytest.mark.parametrize("side", [28, 32, 64, 112])
@pytest.mark.parametrize("backbone", ["compact", "compact-fine"])
def test_the_identity_on_the_compact_backbones(side: int, backbone: str) -> None:
    exact(tiny_teacher(resolution=side, backbone=backbone), side)


@torch.no_grad()
@pytest.mark.parametrize("side", [28, 32, 56, 64, 112])
@pytest.mark.parametrize("backbone", ["compact", "compact-fine"])
def test_a_map_is_drawn_where_it_was_seen(side: int, backbone: str) -> None:
    """With mirror-symmetric kernels a mirrored image has the mirrored map, if cells are centred on their pixels."""
    network = tiny_teacher(resolution=side, backbone=backbone).backbone
    for m in network.modules():
        if isinstance(m, torch.nn.Conv2d):
            m.weight.add_(m.weight.flip(-1)).add_(m.weight.flip(-2))
    images = pictures(2, side)
    features = network.features(images)
    for axis in (-1, -2):
        assert torch.allclose(network.features(images.flip(axis)), features.flip(axis), atol=1e-4)
        assert not torch.allclose(features, features.flip(axis), atol=0.1 * features.std().item())


@pytest.mark.parametrize("backbone", ["compact", "compact-fine"])
def test_a_teacher_with_odd_kernels_is_to_be_fitted_anew(tmp_path: Path, backbone: str) -> None:
    teacher = tiny_teacher(backbone=backbone)
    save_model(teacher, tmp_path / "t", "card")
    weights = load_file(tmp_path / "t" / "model.safetensors")
    stem = weights["backbone.stem.0.weight"]
    weights["backbone.stem.0.weight"] = stem[..., :5, :5].contiguous()
    save_file(weights, tmp_path / "t" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"t does not hold .*odd kernels.*fit it anew: expressivegan teach\)$"):
        open_teacher(str(tmp_path / "t"))


def test_smoothing_keeps_the_mean_and_lowers_the_peak() -> None:
    peak = torch.zeros(1, 2, 6, 6)
    peak[0, 0, 0, 0], peak[0, 1, 3, 3] = 16.0, 16.0
    smoothed = smooth(peak)
    assert smoothed[0, 1, 2:5, 2:5].tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    assert smoothed[0, 0, :2, :2].tolist() == [[9, 3], [3, 1]]  # in the corner nothing is lost
    maps = pictures(3, 16).expand(-1, 4, -1, -1)
    assert torch.allclose(smooth(maps).mean(dim=(2, 3)), maps.mean(dim=(2, 3)), atol=1e-6)


@pytest.mark.parametrize(("side", "coarse", "fine"), [(32, 8, 16), (64, 8, 16), (112, 14, 28)])
def test_the_fine_backbone_has_twice_the_grid_for_less(side: int, coarse: int, fine: int) -> None:
    plain, better = (tiny_teacher(resolution=side, backbone=b) for b in ("compact", "compact-fine"))
    with torch.no_grad():
        assert plain.raw_cams(pictures(1, side))[0].shape[-1] == coarse
        assert better.raw_cams(pictures(1, side))[0].shape[-1] == fine
    sizes = [sum(p.numel() for p in t.parameters()) for t in (better, plain)]
    assert sizes[0] <= sizes[1]


def test_the_identity_on_a_fitted_densenet() -> None:
    exact(tiny_teacher(backbone="densenet121", resolution=64), 64)


def test_the_identity_under_bf16(teacher: CXR_CAM_Teacher) -> None:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        cams, logits = teacher.raw_cams(pictures(3))
    assert cams.dtype == torch.float32
    assert torch.allclose(cams.mean(dim=(2, 3)) + teacher.backbone.classifier.bias, logits, atol=1e-5)


def test_the_identity_on_the_named_weights(folder: Path, xrv: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xrv.utils, "get_cache_dir", lambda: str(folder))
    teacher = CXR_CAM_Teacher().eval()
    assert (teacher.multi_label, teacher.reference, teacher.resolution) == (True, None, 224)
    assert len(teacher.classes) == 18
    exact(teacher, 224)


def test_the_named_weights_say_what_the_library_says(official: tuple[Path, Any], folder: Path) -> None:
    module = official[1]
    module.op_threshs = None
    backbone, labels = load_xrv(NAME, cache_dir=folder)
    assert labels == xrv_labels(NAME)
    x = pictures(2, 224)
    with torch.no_grad():
        assert torch.allclose(backbone(x), module(to_xrv(x)), atol=1e-4, rtol=1e-4)


def test_a_named_teacher_reopens_without_the_library_file(
    folder: Path, xrv: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_download: None
) -> None:
    monkeypatch.setattr(xrv.utils, "get_cache_dir", lambda: str(folder))
    teacher = open_teacher(f"xrv:{NAME}", meth="max")
    save_model(teacher, tmp_path / "t", "card")
    monkeypatch.setattr(xrv.utils, "get_cache_dir", lambda: str(tmp_path / "empty"))
    found = open_teacher(str(tmp_path / "t"))  # a model directory rebuilds itself
    x = pictures(1, 64)
    with torch.no_grad():
        assert torch.equal(found(x).cams, teacher(x).cams)


def test_the_file_is_unpickled_once(
    official: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(official[0], tmp_path)
    load_xrv(NAME, cache_dir=tmp_path)
    (tmp_path / official[0].name).write_bytes(b"never read again")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("unpickled a second time"))
    backbone, _ = load_xrv(NAME, cache_dir=tmp_path)
    assert torch.equal(backbone.classifier.weight, official[1].classifier.weight)
    assert isinstance(backbone, DenseNet121)
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".pt", ".safetensors"]


class Malicious:
    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.victim}",)


@pytest.mark.parametrize("nested", [False, True])
def test_a_malicious_pickle_is_refused_and_not_run(
    xrv: ModuleType, tmp_path: Path, official: tuple[Path, Any], nested: bool
) -> None:
    path, victim = tmp_path / official_name(xrv), tmp_path / "owned"
    torch.save([Malicious(victim), {}] if nested else Malicious(victim), path)
    with pytest.raises(CheckpointError, match="is not torchxrayvision's DenseNet-121 file"):
        load_xrv(NAME, cache_dir=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04 cut"])
def test_garbage_is_named(xrv: ModuleType, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / official_name(xrv)
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{path.name} is not .*delete it"):
        load_xrv(NAME, cache_dir=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_another_network_is_named(xrv: ModuleType, tmp_path: Path) -> None:
    torch.save({"classifier.weight": torch.zeros(2)}, tmp_path / official_name(xrv))
    with pytest.raises(CheckpointError, match="delete it"):
        load_xrv(NAME, cache_dir=tmp_path)


def test_a_damaged_conversion_is_named(folder: Path, tmp_path: Path, xrv: ModuleType) -> None:
    converted = Path(official_name(xrv)).with_suffix(".safetensors")
    (tmp_path / converted).write_bytes((folder / converted).read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=rf"{converted} .*delete it"):
        load_xrv(NAME, cache_dir=tmp_path)


def test_offline_says_what_to_do(tmp_path: Path, no_download: None) -> None:
    with pytest.raises(OfflineError, match=r"xrv:densenet121-res224-all could not.*save https?://.* as .*or fit your"):
        load_xrv(NAME, cache_dir=tmp_path / "new")
    assert not list((tmp_path / "new").iterdir())


def test_a_download_cut_short_is_not_kept(tmp_path: Path, xrv: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(url: str, path: str) -> None:
        Path(path).write_bytes(b"half")
        raise ConnectionError("reset by peer")

    monkeypatch.setattr(xrv.utils, "download", cut)
    with pytest.raises(OfflineError):
        load_xrv(NAME, cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unknown_weights() -> None:
    with pytest.raises(InputError, match=r"xrv:nothing\) must be one of xrv:densenet121"):
        load_xrv("nothing")


def test_the_stem_is_the_convolution_that_it_stores() -> None:
    backbone = tiny_teacher().backbone.double()
    images = pictures(2).double().requires_grad_()
    plain = backbone.blocks(backbone.stem(images).relu())
    assert torch.allclose(backbone.features(images), plain, rtol=1e-12, atol=1e-12)
    ours, theirs = (torch.autograd.grad(f.square().sum(), images)[0] for f in (backbone.features(images), plain))
    assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-12)


@torch.no_grad()
def test_folded_norms_are_the_same_function() -> None:
    teacher = tiny_teacher()
    for m in teacher.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            m.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
    before = teacher(pictures(2))
    fold_norms(teacher.backbone)
    assert not [m for m in teacher.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    after = teacher(pictures(2))
    assert torch.allclose(after.logits, before.logits, atol=1e-4)
    assert torch.allclose(after.cams, before.cams, atol=1e-4)
