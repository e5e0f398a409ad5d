"""The model cards of a run's generator and discriminator."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from expressivegan.config import TrainConfig
from expressivegan.data import ImageSet


def data_facts(images: ImageSet) -> str:
    """What the training set was, as a list in Markdown: images, patients, population, hash, licence."""
    train = images.indices("train")
    counts = {name: int((images.labels[train] == k).sum()) for k, name in enumerate(images.classes)}
    kermany = images.manifest.source == "kermany"
    population = (
        "children of 1 to 5 years from one hospital (Guangzhou Women and Children's Medical Center)"
        if kermany
        else "procedural phantoms, no patients"
        if images.manifest.source == "phantom"
        else "that of the data set; not stated by it"
    )
    licence = (
        "\n- data: Kermany, Zhang and Goldbaum, Mendeley Data, DOI 10.17632/rscbjbr9sj, CC BY 4.0" if kermany else ""
    )
    if kermany and {"BACTERIA", "VIRUS"} <= set(images.classes):
        licence = "\n- BACTERIA, VIRUS: bacterial and viral pneumonia, as the set labels them; NORMAL: none" + licence
    mix = ", ".join(f"{k} {v}" for k, v in counts.items())
    return f"""- learnt from {len(train)} images of {len(set(images.patients[train]))} patients ({mix})
- population: {population}
- data hash `{images.data_hash}`{licence}"""


def _training(config: TrainConfig, images: ImageSet, seen: int, init: Mapping[str, Any] | None) -> str:
    before = (
        f"\n- went on from the networks of {Path(init['path']).name} ({init['resolution']} px), so what those learnt "
        "from is in it, too"
        if init
        else ""
    )
    return f"""{data_facts(images)}
- method {config.method}, {seen / 1000:g} thousand images seen, seed {config.seed}{before}"""


def discriminator_card(config: TrainConfig, images: ImageSet, seen: int, init: Mapping[str, Any] | None = None) -> str:
    """README.md of the discriminator's model directory; see `generator_card`."""
    return f"""---
library_name: expressivegan
tags: [chest-x-ray, gan, explainability]
---
# {config.resolution}x{config.resolution} discriminator, {", ".join(images.classes)}

**Not for diagnosis.** It judges whether an image looks like those that it learnt from, beside a generator's.

{_training(config, images, seen, init)}
"""


def generator_card(config: TrainConfig, images: ImageSet, seen: int, init: Mapping[str, Any] | None = None) -> str:
    """README.md of a model directory: what it is, what it learnt from, what it must not be used for.

    Args:
        config: settings of the run.
        images: its data.
        seen: images seen so far, repeats counted.
        init: what settings.json says of the networks that it started from, if of any.
    """
    expressive = config.method == "expressive"
    network = "GeneratorWithCAMGuidance" if expressive else "DCGANGenerator"
    return f"""---
library_name: expressivegan
tags: [chest-x-ray, gan, synthetic-data]
---
# {config.resolution}x{config.resolution} generator, {", ".join(images.classes)}

**Not for diagnosis.** Its images are synthetic and not meant to show anybody. They may repeat what is odd about their
training data.

{_training(config, images, seen, init)}
- fidelity, memorisation and their floors: not measured yet

```python
from {"expressivegan" if expressive else "expressivegan.models.dcgan"} import {network}
generator = {network}.from_pretrained("this folder")
```
"""
