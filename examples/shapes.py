"""Images that are no X-rays: a texture, and a texture with a bright blob somewhere. Nothing here knows of chests.

    python examples/shapes.py --quick               seconds, 32 px: shows the path
    python examples/shapes.py                       minutes; the teacher finds the blob, the generator is still coarse
    python examples/shapes.py --reference           the texture alone is called "normal": its map is 0, hard

Any folder of class folders works like this. A class called "normal" (in any case) becomes the reference, without a
lesion; without one, as here, each class's map speaks against the mean of the classes, and every class may have a map.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from expressivegan import GeneratorWithCAMGuidance, generate, load_images, show_image_tensor
from expressivegan.config import TeachConfig, preset
from expressivegan.teacher.fit import fit_teacher
from expressivegan.training import Guide, train

SIDE = 48


def texture(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """(SIDE, SIDE) in 0..1: smooth noise, brushed in one direction."""
    noise = gaussian_filter(rng.normal(size=(SIDE, SIDE)), rng.permutation([1.0, 4.0]), mode="wrap")
    return np.asarray(0.35 + 0.08 * noise / noise.std())


def blob(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """(SIDE, SIDE) in 0..1: one bright spot."""
    y, x = rng.uniform(0.2 * SIDE, 0.8 * SIDE, 2)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return np.asarray(np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * rng.uniform(2.5, 5.0) ** 2)))


def write_set(folder: Path, count: int, plain: str) -> None:
    """An image folder, class/number.png. One number is one texture, whatever the class: a "patient"."""
    for name in (plain, "blob"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        rng = np.random.default_rng(number)
        picture = texture(rng)
        name = "blob" if number % 2 else plain
        picture = picture + 0.5 * blob(rng) if name == "blob" else picture
        Image.fromarray((255 * picture.clip(0, 1)).astype(np.uint8)).save(folder / name / f"{number:05d}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/shapes"), help="a new folder")
    parser.add_argument("--kimg", type=float, help="thousands of images to train on")
    parser.add_argument("--reference", action="store_true", help='call the texture alone "normal"')
    parser.add_argument("--quick", action="store_true", help="everything small")
    options = parser.parse_args()
    if options.out.exists() and any(options.out.iterdir()):
        parser.error(f"--out (={options.out}) is not empty; choose another folder")
    quick = options.quick
    kimg = options.kimg or (0.64 if quick else 24.0)

    write_set(options.out / "set", 400 if quick else 2000, "normal" if options.reference else "plain")
    images = load_images(options.out / "set", 32, patient_regex=r"(\d+)\.png$")
    print(
        f"classes {', '.join(images.classes)}; reference {images.manifest.reference_class}; {images.manifest.counts()}"
    )

    teacher = fit_teacher(images, TeachConfig(epochs=16 if quick else 8, batch=16))
    judged = images.indices("judge")
    x, y = images.batch(judged)
    cams, _, logits = teacher(x)
    print(f"teacher: {float((logits.argmax(1) == y).float().mean()):.0%} of {len(judged)} images right")

    config = replace(preset("demo").config, resolution=32, width=32 if quick else 64, kimg=kimg,
                     sample_every=kimg, checkpoint_every=kimg)  # fmt: skip
    result = train(images, config, options.out / "run", Guide(teacher, images.classes, images.reference))
    G = GeneratorWithCAMGuidance.from_pretrained(str(result.model)).eval()
    made = list(generate(G, range(8)))

    shown = torch.cat([torch.nonzero(y == k)[:4, 0] for k in range(len(images.classes))])
    x, y, cams = x[shown], y[shown], cams[shown]
    pictures = torch.cat([x, x, *(m.image for m in made), *(m.image for m in made)])
    nothing = torch.zeros_like(x)
    maps = torch.cat([nothing, cams, nothing, *(m.attention[-1] for m in made)])
    names = [images.classes[k] for k in y.tolist()] * 2 + [images.classes[m.label] for m in made] * 2
    figure = show_image_tensor(pictures, len(pictures), maps, columns=8, titles=names, show=False)
    figure.savefig(options.out / "shapes.png", dpi=90)
    print(f"real images, the teacher's maps, made images, the generator's maps: {options.out / 'shapes.png'}")


if __name__ == "__main__":
    main()
