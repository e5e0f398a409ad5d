"""The five steps of the original notebook, with the names that its users know."""

import subprocess
import sys

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

import expressivegan
from expressivegan import (
    CXR_CAM_Teacher,
    DiscriminatorWithExplain,
    GeneratorWithCAMGuidance,
    expressive_weights_init,
    show_image_tensor,
)


def test_the_notebook() -> None:
    torch.manual_seed(0)
    device = torch.device("cpu")
    # 1. teacher
    teacher = CXR_CAM_Teacher(meth="topk", weights=None).to(device).eval()
    # 2. generator
    G = GeneratorWithCAMGuidance(z_dim=100).to(device)
    G.apply(expressive_weights_init)
    # 3. discriminator
    D = DiscriminatorWithExplain().to(device)
    D.apply(expressive_weights_init)
    # 4. one look
    z, labels = torch.randn(2, 100, device=device), torch.tensor([0, 1])
    image, attention = G(z, labels)
    assert image.shape == (2, 1, 224, 224)
    assert image.abs().max() <= 1
    assert isinstance(attention, list)
    assert attention[-1].shape == image.shape
    region = torch.zeros(2, 1, 224, 224)
    region[:, :, 60:160, 30:100] = 1
    steered, maps = G(z, labels, steer=region)
    assert (maps[-1] <= region).all()
    assert torch.equal(steered[0], image[0])  # NORMAL has nothing to steer
    cams, ups, logits = teacher(image.detach())
    assert (cams.shape, ups.shape, logits.shape) == ((2, 1, 224, 224), (2, 3, 224, 224), (2, 3))
    score, cam = D(image, labels)
    assert (score.shape, cam.shape) == ((2, 1), (2, 1, 224, 224))
    guess, _ = D(image)
    assert guess.shape == (2, 1)
    # 5. show
    figure = show_image_tensor(image, 2, attention=attention[-1], show=False)
    assert isinstance(figure, Figure)
    plt.close(figure)


def test_the_public_names() -> None:
    assert len(set(expressivegan.__all__)) == len(expressivegan.__all__)
    for name in expressivegan.__all__:
        assert getattr(expressivegan, name).__doc__, name


def test_importing_is_quiet_and_changes_nothing() -> None:
    code = (
        "import warnings, torch; before = len(warnings.filters), torch.get_rng_state().tolist();"
        "import expressivegan;"
        "assert torch.get_rng_state().tolist() == before[1];"
        "new = warnings.filters[: len(warnings.filters) - before[0]];"
        "assert not [f for f in new if f[2] is Warning], new"  # torchxrayvision's own import silences every warning
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")
