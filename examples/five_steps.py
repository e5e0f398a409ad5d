"""From labelled X-rays to new ones in five steps: data, teacher, networks, training, generation.

    python examples/five_steps.py --quick            under a minute, drawn phantoms, 32 px: shows the path
    python examples/five_steps.py                    minutes, 64 px
    python examples/five_steps.py --data chest_xray  real X-rays (docs/data.md)

It writes a picture and the run to --out. The command line does the same: expressivegan teach, train, generate.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from expressivegan import (
    CXR_CAM_Teacher,
    DiscriminatorWithExplain,
    GeneratorWithCAMGuidance,
    ImageSet,
    counterfactual_pairs,
    expressive_weights_init,
    generate,
    load_images,
    show_image_tensor,
    write_images,
)
from expressivegan.config import TeachConfig, preset
from expressivegan.teacher.fit import fit_teacher, write_teacher
from expressivegan.training import Guide, train


def step_1_data(source: str, resolution: int) -> ImageSet:
    """Labelled images, dealt to four groups so that no patient is in two of them."""
    images = load_images(source, resolution)
    x, y = images.batch(images.indices("train")[:4])  # (4, 1, H, W) in [-1, 1], (4,)
    print(f"1. data: {images.manifest.counts()}; a batch {tuple(x.shape)}, labels {y.tolist()}")
    return images


def step_2_teacher(images: ImageSet, out: Path, epochs: int) -> CXR_CAM_Teacher:
    """A classifier that shows where it sees each class. It learns from the training group, and is scored on others."""
    config = TeachConfig(epochs=epochs)
    teacher = fit_teacher(images, config)
    report = write_teacher(teacher, images, config, out / "teacher", rounds=100)
    x, _ = images.batch(images.indices("judge")[:8])
    cams, ups, logits = teacher(x)  # (B, 1, H, W) in [0, 1], (B, K, H, W) signed, (B, K)
    print(f"2. teacher: accuracy [95% interval] {report['groups']['judge']['metrics']['accuracy']} on validation;")
    print(f"   cams {tuple(cams.shape)}, ups {tuple(ups.shape)}, logits {tuple(logits.shape)}")
    return teacher


def step_3_networks(images: ImageSet, width: int) -> None:
    """What G and D take and give. Training (step 4) makes its own, from its settings."""
    reference = None if images.reference is None else images.classes[images.reference]
    G = GeneratorWithCAMGuidance(100, images.resolution, images.classes, reference, width).apply(
        expressive_weights_init
    )
    D = DiscriminatorWithExplain(images.resolution, images.classes, reference, width).apply(expressive_weights_init)
    z, labels = torch.randn(2, 100), torch.tensor([0, 1])
    image, attention = G(z, labels)  # (B, 1, H, W) in [-1, 1]; maps in [0, 1], coarse to fine
    score, cam = D(image, labels)  # (B, 1), (B, 1, H, W) in [0, 1]
    found = D.explain(image, labels)
    print(f"3. networks: maps {[tuple(m.shape[2:]) for m in attention]}, score {tuple(score.shape)}, cam "
          f"{tuple(cam.shape)}; score is the mean of the evidence: "
          f"{torch.allclose(found.evidence.mean(dim=(2, 3)), found.score)}")  # fmt: skip


def step_4_train(images: ImageSet, teacher: CXR_CAM_Teacher, out: Path, kimg: float, width: int) -> Path:
    """Both networks learn; the teacher's maps guide them. A run that was stopped goes on with resume=True."""
    config = replace(preset("demo").config, resolution=images.resolution, kimg=kimg, width=width,
                     sample_every=kimg, checkpoint_every=kimg)  # fmt: skip
    guide = Guide(teacher, images.classes, images.reference)
    result = train(images, config, out / "run", guide)
    print(
        f"4. training: {result.images} images seen; generator in {result.model}, samples in {out / 'run' / 'samples'}"
    )
    return result.model


def step_5_generate(images: ImageSet, model: Path, out: Path, count: int) -> None:
    """New images with labels and maps, and the same child with and without the disease."""
    G = GeneratorWithCAMGuidance.from_pretrained(str(model)).eval()
    made = list(generate(G, range(12)))  # image i depends on model, seed, i and label alone
    figure = show_image_tensor(
        torch.cat([m.image for m in made]),
        attention=torch.cat([m.attention[-1] for m in made]),
        columns=6,
        titles=[images.classes[m.label] for m in made],
        show=False,
    )
    figure.savefig(out / "generated.png", dpi=90)
    disease = next(k for k in range(len(images.classes)) if k != images.reference)
    pair = counterfactual_pairs(G, list(range(6)), disease)
    untouched = pair.mask == 0
    assert torch.equal(pair.without[untouched], pair.with_disease[untouched])
    show_image_tensor(torch.cat([pair.without, pair.with_disease]), columns=6, show=False).savefig(out / "pairs.png")
    table = write_images(model, out / "images", count)  # PNGs that say what they are, maps, overlays
    print(f"5. generation: {out / 'generated.png'}, {out / 'pairs.png'}, {table}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of X-rays, manifest, or phantom[:COUNT]")
    parser.add_argument("--out", type=Path, default=Path("runs/five_steps"), help="a new folder")
    parser.add_argument("--kimg", type=float, help="thousands of images to train on")
    parser.add_argument("--quick", action="store_true", help="everything small")
    options = parser.parse_args()
    if (options.out / "run").exists():
        parser.error(f"--out (={options.out}) holds a run already; choose another folder")
    options.out.mkdir(parents=True, exist_ok=True)
    quick = options.quick
    width = 32 if quick else 128

    images = step_1_data(options.data or ("phantom:480" if quick else "phantom"), 32 if quick else 64)
    teacher = step_2_teacher(images, options.out, epochs=10 if quick else 12)
    step_3_networks(images, width)
    model = step_4_train(images, teacher, options.out, options.kimg or (0.64 if quick else 24.0), width)
    step_5_generate(images, model, options.out, count=6 if quick else 48)


if __name__ == "__main__":
    main()
