"""Initialisation, and a convolution whose second derivative is right."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from expressivegan.models import DiscriminatorWithExplain, GeneratorWithCAMGuidance, expressive_weights_init, layers
from expressivegan.models.layers import Conv, Dense, ModulatedBlock, ResidualBlock, activate, upsample
from expressivegan.models.penalised import input_gradients_only, penalised_conv2d
from expressivegan.training.losses import gradient_penalty, relativistic
from tiny import noise, pictures, tiny_discriminator, tiny_generator

# --- initialisation ---------------------------------------------------------------------------------------------------


def test_plain_dcgan_modules_get_the_values_of_dcgan() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(64, 64, 3), nn.ConvTranspose2d(64, 64, 4, bias=False), nn.BatchNorm2d(512), nn.GroupNorm(4, 512),
        nn.Linear(100, 300), nn.ReLU(), nn.BatchNorm2d(4, affine=False), nn.InstanceNorm2d(4),
    ).apply(expressive_weights_init)  # fmt: skip
    conv, up, norm, group, linear = network[:5]
    for module in (conv, up):
        assert module.weight.mean().item() == pytest.approx(0, abs=1e-3)
        assert module.weight.std().item() == pytest.approx(0.02, rel=0.05)
    for module in (norm, group):
        assert module.weight.mean().item() == pytest.approx(1, abs=5e-3)
        assert module.weight.std().item() == pytest.approx(0.02, rel=0.2)
    bound = math.sqrt(6 / 400)
    assert bound * 0.99 < linear.weight.abs().max().item() <= bound
    for module in (conv, norm, group, linear):
        assert not module.bias.any()


@pytest.mark.parametrize("kind", [GeneratorWithCAMGuidance, DiscriminatorWithExplain])
def test_our_networks_keep_their_gains(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    network = kind(resolution=32, width=32)
    before = {n: m.weight.std().item() for n, m in network.named_modules() if isinstance(m, (Conv, Dense))}
    assert network.apply(expressive_weights_init) is network
    checked = 0
    for name, module in network.named_modules():
        if not isinstance(module, (Conv, Dense)):
            continue
        expected = module.gain / math.sqrt(module.weight[0].numel())
        if expected == 0:
            assert not module.weight.any()
        elif module.weight.numel() > 2000:
            assert module.weight.std().item() == pytest.approx(expected, rel=0.1), name
            assert before[name] == pytest.approx(expected, rel=0.1), name
            checked += 1
        assert module.bias is None or not module.bias.any()
    assert checked > 3


def test_initialisation_follows_the_seed() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Linear(4, 4))
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        network.apply(expressive_weights_init)
        found.append(network[0].weight.detach().clone())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_fresh_networks_start_in_range() -> None:
    torch.manual_seed(0)
    G = GeneratorWithCAMGuidance(resolution=64, width=32)
    D = DiscriminatorWithExplain(resolution=64, width=32)
    with torch.no_grad():
        image = G(noise(8, 100))[0]
        score = D(image)[0]
    assert 0.05 < image.std() < 0.95
    assert 1e-3 < score.abs().max() < 30


# --- blocks -----------------------------------------------------------------------------------------------------------


def doubled(x: Tensor) -> Tensor:
    return nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (2, 1, 1, 2)])
def test_upsampling_has_the_derivatives_of_the_bilinear_one(shape: tuple[int, ...]) -> None:
    x = noise(*shape).double().requires_grad_()
    assert torch.equal(upsample(x), doubled(x))
    assert torch.autograd.gradcheck(upsample, x)
    assert torch.autograd.gradgradcheck(upsample, x)
    grad = noise(shape[0], shape[1], 2 * shape[2], 2 * shape[3], seed=1).double()
    ours, theirs = (torch.autograd.grad(f(x), x, grad)[0] for f in (upsample, doubled))
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-14)
    assert torch.equal(upsample(x.detach()), doubled(x))


def test_blocks_are_what_they_say() -> None:
    torch.manual_seed(0)
    x, style = noise(2, 6, 4, 4).double(), noise(2, 5, seed=1).double()
    kept = x.clone()
    block, residual, narrow = ModulatedBlock(6, 5).double(), ResidualBlock(6, 6).double(), ResidualBlock(6, 3).double()
    nn.init.normal_(block.second.weight)
    scale, shift = block.affine(style)[:, :, None, None].chunk(2, dim=1)
    moved = x * (1 + scale) + shift
    assert torch.allclose(block(x, style), moved + block.second(activate(block.first(activate(moved)))))
    for each in (residual, narrow):
        assert torch.allclose(each(x), each.skip(x) + each.second(activate(each.first(activate(x)))))
    assert torch.equal(x, kept)  # nothing of the caller's is overwritten


# --- the penalised convolution ----------------------------------------------------------------------------------------

Convolution = Callable[[Tensor, Tensor, Tensor | None, int], Tensor]


def plain(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    return torch.conv2d(x, weight, bias, padding=padding)


def leaves(kernel: int, bias: bool) -> list[Tensor]:
    shapes = [(2, 3, 6, 5), (4, 3, kernel, kernel)] + ([(4,)] if bias else [])
    return [noise(*s, seed=i).double().requires_grad_() for i, s in enumerate(shapes)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.filterwarnings("ignore:.*Anomaly")
def test_derivatives_against_finite_differences(kernel: int, bias: bool) -> None:
    inputs = leaves(kernel, bias)

    def run(x: Tensor, weight: Tensor, b: Tensor | None = None) -> Tensor:
        return penalised_conv2d(x, weight, b, kernel // 2)

    assert torch.equal(run(*inputs), plain(*inputs, *([] if bias else [None]), kernel // 2))
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


def penalty_gradients(convolution: Convolution, kernel: int, bias: bool, cheap: bool) -> list[Tensor]:
    """Gradients of a loss and of the squared norm of its input gradient, through two convolutions and a bend."""
    inputs = leaves(kernel, bias)
    x, weight, b = inputs[0], inputs[1], inputs[2] if bias else None
    second = noise(2, 4, kernel, kernel, seed=9).double().requires_grad_()
    out = convolution(torch.sin(convolution(x, weight, b, kernel // 2)), second, None, kernel // 2)
    score = out.square().mean(dim=(1, 2, 3))
    if cheap:
        penalty, _ = gradient_penalty(score, x)
    else:
        (gradient,) = torch.autograd.grad(score.sum(), x, create_graph=True)
        penalty = gradient.square().sum(dim=(1, 2, 3))
    return list(torch.autograd.grad(penalty.mean() + score.mean(), [*inputs, second]))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("cheap", [True, False])
def test_a_gradient_penalty_is_that_of_a_plain_convolution(kernel: int, bias: bool, cheap: bool) -> None:
    ours = penalty_gradients(penalised_conv2d, kernel, bias, cheap)
    theirs = penalty_gradients(plain, kernel, bias, False)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-12)


def test_weights_get_their_gradient_again_after_the_penalty() -> None:
    x, weight, bias = leaves(3, True)
    with input_gradients_only():
        out = penalised_conv2d(x, weight, bias, 1).sum()
        (gradient,) = torch.autograd.grad(out, x, create_graph=True)
        assert gradient.requires_grad
    penalised_conv2d(x, weight, bias, 1).sum().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert bias.grad is not None


def whole_discriminator() -> dict[str, Tensor]:
    """One step of D in float64, R1 and R2 included."""
    D = tiny_discriminator().double().train()
    real, fake = pictures(3, seed=1).double(), pictures(3, seed=2).double()
    y = torch.tensor([0, 1, 2])
    images = torch.cat([real, fake]).requires_grad_()
    found = D.explain(images, torch.cat([y, y]))
    loss = relativistic(found.score[:3], found.score[3:]) + 3.0 * gradient_penalty(found.score, images)[0].mean()
    loss = loss + nn.functional.cross_entropy(found.class_logits[:3], y) + found.class_maps[:3].square().mean()
    loss.backward()
    return {n: p.grad for n, p in D.named_parameters() if p.grad is not None}


def test_r1_through_the_whole_discriminator(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = whole_discriminator()
    used = []
    with monkeypatch.context() as patch:

        def reference(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
            used.append(1)
            return plain(x, weight, bias, padding)

        patch.setattr(layers, "penalised_conv2d", reference)
        theirs = whole_discriminator()
    assert used
    assert set(ours) == set(theirs)
    for name, gradient in theirs.items():
        assert torch.allclose(ours[name], gradient, rtol=1e-9, atol=1e-12), name


def test_the_penalty_works_in_bf16() -> None:
    def run(enabled: bool) -> list[Tensor]:
        D, x = tiny_discriminator().train(), pictures(4).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            penalty = gradient_penalty(D.score(x, torch.tensor([0, 1, 2, 0])), x)[0].mean()
        penalty.backward()
        return [penalty.detach(), D.stem.weight.grad]

    half, full = run(True), run(False)
    assert float(half[0]) == pytest.approx(float(full[0]), rel=0.1)
    assert torch.nn.functional.cosine_similarity(half[1].flatten(), full[1].flatten(), dim=0) > 0.98


def test_a_generator_step_through_the_discriminator_leaves_it_alone() -> None:
    G, D = tiny_generator().train(), tiny_discriminator().train().requires_grad_(False)
    D.score(G(noise(2, 8), torch.tensor([1, 2]))[0], torch.tensor([1, 2])).sum().backward()
    assert all(p.grad is None for p in D.parameters())
    assert G.stem.weight.grad is not None
