"""The card of a model that comes with the package: every figure is read from results.json, none is typed."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from expressivegan.config import PRESETS, TeachConfig, TrainConfig
from expressivegan.data import ImageSet
from expressivegan.data.download import HOMES
from expressivegan.training.card import data_facts

_FIDELITY = ("fid", "kid", "precision", "recall", "density", "coverage")


def model_card(
    name: str,
    config: TrainConfig,
    teach: Mapping[str, Any],
    images: ImageSet,
    seen: int,
    results: Mapping[str, Any] | None,
    start: str | None = None,
    seen_faults: Sequence[str] = (),
) -> str:
    """README.md.

    Args:
        name: what `--model` takes.
        config: of the run.
        teach: settings that the teacher was fitted with, as its `expressivegan.json` names them.
        images: the data of the run.
        seen: images that the generator was trained on, repeats counted.
        results: results.json of the standard evaluation; None says that there was none.
        start: the model whose networks the run went on from, if it did.
        seen_faults: sentences on what is wrong with its pictures and stands in no figure.
    """
    home = HOMES.get(images.manifest.source)
    patients = {g: len(set(images.patients[images.indices(g)])) for g in ("judge", "reference", "test")}
    held = ", ".join(f"{count} {group} patients" for group, count in patients.items())
    faults = "".join(f"- {sentence}\n" for sentence in seen_faults)
    rights = (
        "The training images are drawn phantoms; nobody holds rights in them."
        if home is None
        else f"The training images are under {home.licence}: {home.citation}. They were made "
        f"{config.resolution}x{config.resolution} and grey. These weights and their images are under the same licence; "
        "name the authors of the data, and say that the images are synthetic."
    )
    return f"""---
library_name: expressivegan
license: {"mit" if home is None else "cc-by-4.0"}
tags: [chest-x-ray, gan, synthetic-data, class-activation-map, medical-imaging]
---
# {name}: {config.resolution}x{config.resolution} chest X-rays, {", ".join(images.classes)}

**Not for diagnosis.** A generator of labelled synthetic chest X-rays with maps of where the disease was put, and the
discriminator and the teacher that it was trained with. Its images are synthetic and not meant to show any real child.

![one row a class: {", ".join(images.classes)}](samples.png)

The first images of seed 0, not chosen ones: one row a class, one column a latent vector.

```sh
expressivegan generate --model {name} --num 64 --out images
```

{_figures(results)}
## What it learnt from

{data_facts(images)}
- held back from generator, discriminator and teacher: {held}
- {len(images)} images in all: with others, even more of the same set, `evaluate` and `counterfactual --data` ask for
  `--other-data`

## How it was made

```sh
{_command("teach --data DATA --out teacher", dict(teach), asdict(TeachConfig()))}
{_train_command(config, start)}
```

{seen / 1000:g} thousand images seen, repeats counted{f", after those of {start}" if start else ""}; seed {config.seed}.
The generator is the averaged one.

## Licence and attribution

{rights}

## Intended use

Research and teaching: balanced, labelled images with maps, counterfactual pairs, a start for training on a set of your
own. Not for diagnosis, not for decisions about patients, and not as the only test of a method: measure that on real
images.

## Known limits

{faults}- Its population is that of its training set and no other: see above.
- At {config.resolution} px a chest X-ray has lost much that a radiologist looks for.
- Labels are those of the data set, with their errors. Where classes differ in exposure or framing, synthetic images
  repeat it (see Shortcuts); `--shortcut-free` draws framing apart from the label.
- Maps say where this generator acts, which is not where a radiologist would see disease.
- That no sign of memorisation was found does not prove that there is none.
"""


def _figures(results: Mapping[str, Any] | None) -> str:
    if results is None:
        return "## How good it is\n\nNot evaluated: no figure of this model has been measured.\n"
    sections, data = results["sections"], results["data"]
    against = data["groups"][data["held_against"]]
    lines = [
        "## How good it is", "",
        f"{results['generated']['images']} images against {against['images']} real ones of {against['patients']} "
        f"{data['held_against']} patients. Brackets are 95% intervals. The floor is real against other real images, at "
        f"equal numbers and class mix. Judge, an independent classifier, and selfsup, a self-supervised network, were "
        f"fitted on other patients and see images at {data.get('feature_resolution', 64)} px. What stands in quotation "
        "marks are real images, most of them spoilt on purpose.", "",
        *(f"- {sentence}" for sentence in results["summary"]),
        *(f"- Not measured: {name}: {why}" for name, why in results["left_out"].items()), "",
    ]  # fmt: skip
    if "fidelity" in sections:
        n = sections["fidelity"]["n"]
        lines += [f"### Fidelity and diversity ({n} images a side)", ""]
        lines += ["| features | figure | this model | floor | place among known degradations of real images |"]
        lines += ["| --- | --- | --- | --- | --- |"]
        for space, found in sections["fidelity"]["spaces"].items():
            for figure in _FIDELITY:
                over = found["over_floor"][figure]
                ratio = f" = {over:.1f}x the floor" if figure == "fid" and over is not None else ""
                value = _interval(found["generated"]["overall"]["figures"][figure])
                row = (space, figure.upper() if len(figure) == 3 else figure, value + ratio)
                lines.append(f"| {' | '.join(row)} | {found['floor'][figure]:.3g} | {found['place'][figure]} |")
        lines.append("")
    if "diversity" in sections:
        lines += ["| features | class | spread, of real | near-twins | among real |", "| --- | --- | --- | --- | --- |"]
        for space, classes in sections["diversity"]["spaces"].items():
            for label, row in classes.items():
                twins = f"{row['duplicate_rate']:.1%} | {row['duplicate_rate_real']:.1%}"
                lines.append(f"| {space} | {label} | {row['diversity_ratio']:.2f} | {twins} |")
        lines.append("")
    if "agreement" in sections:
        lines += ["### Class agreement", "", "Share that an independent classifier gives the label that it has.", ""]
        lines += _beside_real("class", sections["agreement"]["figures"], "accuracy_")
    if "shortcuts" in sections:
        lines += ["### Shortcuts", "", "How well what is not the lungs tells the label (AUC; 0.5 is chance).", ""]
        words = {"frame": "the outer 10% of the frame"}
        found = {words.get(what, what): row for what, row in sections["shortcuts"]["figures"].items()}
        lines += _beside_real("what", found)
    if "memorisation" in sections:
        found = sections["memorisation"]
        membership = found["membership"]["auc"]
        lines += ["### Memorisation", "", found["verdict"], "", f"Membership inference: AUC {_interval(membership)}."]
        share = {end: f"{found['copies_share'][end]:.2%}" for end in ("value", "low", "high")}
        lines += [f"Near-duplicates of training images: {share['value']} [{share['low']}, {share['high']}].", ""]
    return "\n".join(lines)


def _beside_real(of: str, rows: Mapping[str, Any], prefix: str = "") -> list[str]:
    """A table of figures, each beside that of real images."""
    lines = [f"| {of} | this model | real | difference |", "| --- | --- | --- | --- |"]
    for name, row in rows.items():
        cells = (_interval(row[f"{prefix}{part}"]) for part in ("fake", "real", "difference"))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, ""]


def _interval(figure: Mapping[str, float | None]) -> str:
    if figure["value"] is None:
        return "undefined"
    ends = "" if figure["low"] is None else f" [{figure['low']:.3g}, {figure['high']:.3g}]"
    return f"{figure['value']:.3g}{ends}"


def _train_command(config: TrainConfig, start: str | None) -> str:
    """What to type for these settings: the nearest preset and what differs from it."""
    own = config.to_json()
    flags = {name: _differing(own, known.config.to_json()) for name, known in PRESETS.items()}
    nearest = min(flags, key=lambda name: len(flags[name]))
    preset = "" if nearest == "cpu-64" else f" --preset {nearest}"
    preset += f" --init {start}" if start else ""
    return _command(f"train --data DATA --teacher teacher --out run{preset}", own, PRESETS[nearest].config.to_json())


def _differing(own: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in own.items() if known.get(key) != value and value is not None}


def _command(words: str, own: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    flags = [f"--{key.replace('_', '-')} {value}" for key, value in _differing(own, known).items()]
    return " ".join(["expressivegan", words, *flags])
