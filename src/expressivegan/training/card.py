"""The model card of a generator."""

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
    mix = ", ".join(f"{k} {v}" for k, v in counts.items())
    return f"""- learnt from {len(train)} images of {len(set(images.patients[train]))} patients ({mix})
- population: {population}
- data hash `{images.data_hash}`{licence}"""


def generator_card(config: TrainConfig, images: ImageSet, seen: int) -> str:
    """README.md of a model directory: what it is, what it learnt from, what it must not be used for."""
    return f"""---
library_name: expressivegan
tags: [chest-x-ray, gan, synthetic-data]
---
# {config.resolution}x{config.resolution} generator, {", ".join(images.classes)}

**Not for diagnosis.** Its images are synthetic and show nobody. They may repeat what is odd about their training data.

{data_facts(images)}
- method {config.method}, {seen / 1000:g} thousand images seen, seed {config.seed}
- fidelity, memorisation and their floors: not measured yet

```python
from expressivegan import GeneratorWithCAMGuidance
generator = GeneratorWithCAMGuidance.from_pretrained("this folder")
```
"""
