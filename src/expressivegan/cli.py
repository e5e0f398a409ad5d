"""The command line. A user's mistake is one sentence on standard error and exit code 2, never a traceback."""

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.markup import escape
from tyro.conf import OmitArgPrefixes, Positional, Suppress, arg, subcommand

from expressivegan.cli_data import Data
from expressivegan.config import PRESETS, STARTED, TeachConfig, TrainConfig, preset
from expressivegan.console import console
from expressivegan.devices import Device, keep_freed_memory
from expressivegan.errors import ExpressiveGANError, InputError, Stopped
from expressivegan.weights import shipped_models

Fit = Literal["stretch", "pad", "crop"]

_SHIPPED = f"a model of the package: {', '.join(model.name for model in shipped_models())}"
_MODEL = f"A run, a model directory, or {_SHIPPED}."
_PRESETS = "Named settings; every setting below overrides its value. " + " ".join(
    f"{name}: {found.about}." for name, found in PRESETS.items()
)
_Model = Annotated[Path, arg(help=_MODEL)]


class _OutsideError(ExpressiveGANError):
    """An `InputError` that the parser of the command line shall not catch, as it does with every `ValueError`."""


class _Outside:
    """Settings whose mistakes are told as those of every command, in one sentence."""

    def __post_init__(self) -> None:
        try:
            super().__post_init__()  # type: ignore[misc]
        except InputError as error:
            raise _OutsideError(str(error)) from error


@dataclass(frozen=True)
class _Settings(_Outside, TrainConfig):
    pass


@dataclass(frozen=True)
class _TeachSettings(_Outside, TeachConfig):
    pass


@dataclass
class Teach:
    """Fit a teacher on the classes of a data set, and say how good it is."""

    data: str
    """Folder of X-rays, a saved manifest, or phantom[:COUNT]."""
    out: Path
    """Model directory to write, with report.json, confusion.png and cams.png."""
    resolution: int = 64
    """Side of the images: 7·2^k or 4·2^k; 224 for densenet121."""
    fit: Fit = "stretch"
    """How a picture becomes square."""
    config: OmitArgPrefixes[_TeachSettings] = field(default_factory=_TeachSettings)
    device: Device = "auto"
    """Where to compute."""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    """auto: bf16-mixed where the hardware has it."""

    def run(self) -> None:
        from expressivegan import commands  # here, so that --help and mistakes need not wait for the networks

        commands.teach(self.data, self.out, self.resolution, self.fit, self.config, self.device, self.precision)


@dataclass
class Train:
    """Train a generator with attention maps, guided by a teacher's class-activation maps."""

    data: str | None = None
    """Folder of X-rays, a saved manifest, or phantom[:COUNT]. With --resume it may be left out."""
    out: Path = Path("run")
    """Run directory."""
    preset: Annotated[str, arg(help=_PRESETS)] = "cpu-64"
    teacher: str | None = None
    """Model directory of a teacher, a model of the package that has one, xrv:NAME for torchxrayvision's weights, or
    none. Default: fit one into the run, as `expressivegan teach` does."""
    init: str | None = None
    """Start from the networks of a run, a model directory or a model of the package: to go on with other data, or to
    grow to a larger --resolution, and keep what they learnt (docs/growing.md). --z-dim, --width and --min-width are
    theirs then."""
    minutes: float | None = None
    """Budget: turned into --kimg once, after a short calibration, and saved."""
    resume: bool = False
    """Go on with the run in --out from its newest checkpoint, exactly. --kimg makes it longer: a finished run goes on
    with the rate and penalty that it ended with, another's schedules are drawn out."""
    dry_run: bool = False
    """Print resolved settings, parameter counts, memory and expected time; train nothing."""
    device: Device = "auto"
    """Where to compute. Several processes: launch with torchrun."""
    config: OmitArgPrefixes[_Settings] = field(default_factory=_Settings)
    typed: Suppress[frozenset[str]] = frozenset()  # settings that stand on the command line

    def run(self) -> None:
        from expressivegan import commands  # here, so that --help and mistakes need not wait for the networks

        preset(self.preset)
        config, typed = TrainConfig.from_json(self.config.to_json()), self.typed
        if self.minutes is not None and "kimg" in typed:
            raise InputError("--minutes and --kimg are two ways to say the same; give one of them")
        if self.minutes is not None and not 0 < self.minutes < float("inf"):
            raise InputError(f"--minutes (={self.minutes}) must be positive and finite")
        if self.init is None and not self.resume and self.preset in STARTED:
            raise InputError(
                f"--preset {self.preset} goes on from trained networks: give them with --init, or take a preset that "
                "starts from nothing"
            )
        if self.resume and self.init is not None:
            raise InputError("--init starts a new run; --resume goes on with one, which needs --init no more")
        if self.resume and self.dry_run:
            raise InputError("--dry-run says what a new run would be; it does not go with --resume")
        if self.resume:
            given = sorted(typed - {"kimg"}) + ["minutes"] * (self.minutes is not None)
            if given:
                names = ", ".join(f"--{n.replace('_', '-')}" for n in given)
                raise InputError(f"--resume goes on with the run's own settings, so {names} cannot be given; "
                                 "only --kimg can, to make the run longer")  # fmt: skip
            commands.resume(self.out, self.data, self.teacher, config.kimg if "kimg" in typed else None, self.device)
            return
        if self.data is None:
            raise InputError("--data is missing: give a folder of X-rays, a manifest, or phantom")
        commands.train(
            self.data,
            self.out,
            config,
            self.teacher,
            self.minutes,
            self.device,
            init=self.init,
            asked=typed,
            dry_run=self.dry_run,
        )


@dataclass
class Generate:
    """Make labelled images with maps: PNG with provenance, NPZ, overlays, labels.csv."""

    model: _Model
    out: Path
    """Folder to write; an interrupted one is completed."""
    num: int = 16
    """How many images."""
    label: str | None = None
    """One class for all of them; the default goes round the classes."""
    seed: int = 0
    """Image i depends on model, seed, i, label, style, steering and truncation alone."""
    steer: tuple[str, ...] = ()
    """Where the disease shall be: a grey picture of the model's size, "ellipse X Y RX RY" or "box X0 Y0 X1 Y1" in
    shares of the sides (y downwards), or a zone, "right upper" to "left lower"; right and left are the patient's, so
    the right lung is on the picture's left. Several are joined; put each in quotes. Needs --label."""
    style_label: str | None = None
    """Acquisition (exposure, collimation, pose) of a class; the default follows the label."""
    shortcut_free: bool = False
    """Draw each image's acquisition independently of its label, so that the frame does not tell the label."""
    truncation: float = 1.0
    """0..1: less variety, more typical images."""
    batch: int | None = None
    """Images at a time; the default is as many as are made fastest."""
    deterministic: bool = False
    """Fixed, padded batches: equal to the bit whatever --num."""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "32-true"
    """bf16-mixed is faster where the hardware has it, and changes images by 0.8 grey levels on average (RMS), here
    and there by 14; auto takes it there."""
    device: Device = "auto"
    """Where to compute."""

    def run(self) -> None:
        from expressivegan.generate_command import generate  # here, so that --help need not wait for the networks

        generate(
            self.model,
            self.out,
            self.num,
            label=self.label,
            seed=self.seed,
            steer=self.steer,
            style_label=self.style_label,
            shortcut_free=self.shortcut_free,
            truncation=self.truncation,
            batch=self.batch,
            deterministic=self.deterministic,
            device=self.device,
            precision=self.precision,
        )


@dataclass
class Counterfactual:
    """The same child with and without a disease, synthetic or real: pairs, strips, difference, map and scores."""

    model: _Model
    label: str
    """The disease to add; with --image also NORMAL, which takes the image's disease away."""
    out: Path
    """Folder to write: new, empty, or one that an interrupted run left, which goes on."""
    num: int = 1
    """How many synthetic children: images 0, 1, ... of the seed, as `generate --label` makes them."""
    seed: int = 0
    """Of the children; of a real image, of the fit."""
    strength: float = 1.0
    """0..1: how much of the disease the last picture of a strip has."""
    steps: int = 5
    """Pictures of a strip, from 0 to --strength."""
    steer: tuple[str, ...] = ()
    """Where the disease shall be, as in `generate`: a grey picture, "ellipse X Y RX RY", "box X0 Y0 X1 Y1" or a zone
    such as "right lower"; right and left are the patient's, so the right lung is on the picture's left."""
    style_label: str | None = None
    """Acquisition of a class; the default follows --label."""
    image: Path | None = None
    """A real X-ray instead: it is fitted, then edited."""
    image_label: str | None = None
    """What the real X-ray shows; the default is what the teacher sees."""
    any_image: bool = False
    """Edit --image even if it is unlike the X-rays that the model learnt from; else it is refused."""
    keep_residual: bool = True
    """Add to every picture what the fit could not draw, so that it shows the real child; else the model's drawing."""
    data: str | None = None
    """Data whose judge patients the independent classifier is fitted on; the default is the run's own."""
    other_data: bool = False
    """--data are others than the model was trained on, such as another hospital's; else they are refused."""

    def run(self) -> None:
        from expressivegan.counterfactual_command import counterfactual  # here, so that --help need not wait

        counterfactual(
            self.model,
            self.out,
            label=self.label,
            num=self.num,
            seed=self.seed,
            strength=self.strength,
            steps=self.steps,
            steer=self.steer,
            style_label=self.style_label,
            image=self.image,
            image_label=self.image_label,
            any_image=self.any_image,
            keep_residual=self.keep_residual,
            data=self.data,
            other_data=self.other_data,
        )


@dataclass
class Evaluate:
    """Measure synthetic images, or whether a run's maps show what they claim to (--suite faithfulness)."""

    data: str
    """The real images that they are to be like, split by patient: what the model was trained on."""
    model: Annotated[Path | None, arg(help=f"{_MODEL} Or give --images.")] = None
    images: str | None = None
    """Folder or archive of images that any tool made: class folders, labels.csv (file, label), or without labels."""
    out: Path = Path("evaluation")
    """Folder for results.json, results.csv and figures; an interrupted evaluation there goes on."""
    suite: Literal["standard", "faithfulness"] = "standard"
    """standard: fidelity, diversity, class agreement, anatomy, shortcuts, memorisation. faithfulness: the maps of
    teacher, discriminator and generator, beside maps that know nothing; --model must be a run."""
    num: int | None = None
    """How many images of a model; default 2000, and 300 for faithfulness, which takes as many real ones as of a class
    are made."""
    resolution: int | None = None
    """Side that images of a folder are judged at; default 64."""
    fit: Fit | None = None
    """How images of a folder, and the real ones beside them, become square; default stretch. A model has its own."""
    features: tuple[str, ...] = ("judge", "selfsup")
    """Feature spaces of the standard suite: judge, selfsup, xrv:NAME, inception[:PATH], rad-dino[:PATH],
    module:NAME:ATTRIBUTE, onnx:PATH."""
    feature_resolution: int | None = None
    """Side at which judge and selfsup see images; default the images' own, from 64 to 128. They are fitted once for
    each size."""
    sections: tuple[Literal["fidelity", "diversity", "agreement", "anatomy", "shortcuts", "memorisation"], ...] = ()
    """What to measure of the standard suite; default all."""
    teachers: tuple[Path, ...] = ()
    """Teachers fitted alike with other seeds: faithfulness then says how far their maps repeat."""
    group: Literal["reference", "test"] = "reference"
    """Whose real images they are held against. test: of a model that is final; every such evaluation is logged."""
    other_data: bool = False
    """The data are on purpose not those that the model was trained on, such as another hospital's; without
    memorisation, which cannot be told then."""
    seed: int = 0
    """Of the images, of what is fitted and drawn."""

    def run(self) -> None:
        from expressivegan.evaluate_command import evaluate

        evaluate(
            self.model,
            self.images,
            self.data,
            self.out,
            suite=self.suite,
            num=self.num,
            resolution=self.resolution,
            fit=self.fit,
            features=self.features,
            feature_resolution=self.feature_resolution,
            sections=self.sections,
            teachers=self.teachers,
            group=self.group,
            other_data=self.other_data,
            seed=self.seed,
        )


@dataclass
class Explain:
    """Show where the networks look in real or synthetic images: maps, scores, and a warning for what is no X-ray."""

    model: Annotated[
        Path, arg(help=f"A run (its teacher and discriminator explain), a teacher's folder, or {_SHIPPED}.")
    ]
    images: Positional[tuple[Path, ...]] = ()
    """PNG, JPEG or DICOM files, folders of them, ZIP archives."""
    out: Path = Path("explanations")
    """Folder to write, new or empty: a montage, overlays and maps for each image, and explanations.json."""
    label: str | None = None
    """Explain this class rather than the likeliest."""
    data: str | None = None
    """The real images that the model was trained on; by default where the run remembers them."""
    methods: tuple[Literal["grad-cam", "grad-cam++", "occlusion"], ...] | None = None
    """By other libraries, beside ours; by default all, if pip install 'expressivegan[explain]' has been done."""
    store: bool = False
    """Keep with the model what real images say, so that it explains without them; not with one of the package."""
    device: Device = "auto"
    """Where to compute."""

    def run(self) -> None:
        from expressivegan.explain_command import explain  # here, so that --help need not wait for the networks

        explain(
            self.model,
            self.images,
            self.out,
            label=self.label,
            data=self.data,
            methods=self.methods,
            store=self.store,
            device=self.device,
        )


@dataclass
class Demo:
    """The whole path on the embedded phantom: teacher, training, images, maps, pairs, curves."""

    out: Path = Path("demo")
    """Folder to write; it must be empty or new."""
    minutes: float = 4.0
    """Time for training the generator."""
    device: Device = "auto"
    """Where to compute."""

    def run(self) -> None:
        from expressivegan import commands  # here, so that --help and mistakes need not wait for the networks

        commands.demo(self.out, self.minutes, self.device)


def _train_default(argv: Sequence[str]) -> Train:
    """The train command with the values of the preset that is asked for, so that --help shows them."""
    name = "cpu-64"
    for here, after in zip(argv, [*argv[1:], ""], strict=True):
        name = after if here == "--preset" else here.removeprefix("--preset=") if here.startswith("--preset=") else name
    chosen = preset(name).config if name in PRESETS or argv[:1] == ["train"] else TrainConfig()
    flags = {argument.split("=")[0].removeprefix("--").replace("-", "_") for argument in argv if argument[:2] == "--"}
    typed = frozenset(flags & {"preset", *(f.name for f in fields(TrainConfig))})
    return Train(preset=name, config=_Settings(**chosen.to_json()), typed=typed)


def _check_data_command(argv: Sequence[str]) -> None:
    """Says what to type where the command of `data` is missing, which reads like a folder."""
    names = ("show", "doctor", "fix", "prepare", "download")
    if argv[:1] != ["data"] or argv[1:2] in ([], ["--help"], ["-h"]) or argv[1] in names:
        return
    given = argv[2] if argv[1] == "--data" and len(argv) > 2 else argv[1]
    raise InputError(
        f"data (={given!r}) must be followed by one of {', '.join(names)}; try: expressivegan data show {given}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `expressivegan`. Returns 0, 1 for data worse than allowed, 2 for a mistake, 130 after Ctrl-C."""
    argv = list(sys.argv[1:] if argv is None else argv)
    keep_freed_memory()
    warnings.showwarning = lambda message, *a, **k: console.print(f"[yellow]warning:[/yellow] {escape(str(message))}")
    try:
        _check_data_command(argv)
        Command = (
            Annotated[Data, subcommand("data")]
            | Annotated[Teach, subcommand("teach")]
            | Annotated[Train, subcommand("train", default=_train_default(argv))]
            | Annotated[Generate, subcommand("generate")]
            | Annotated[Counterfactual, subcommand("counterfactual")]
            | Annotated[Evaluate, subcommand("evaluate")]
            | Annotated[Explain, subcommand("explain")]
            | Annotated[Demo, subcommand("demo")]
        )
        command = tyro.cli(Command, args=argv, prog="expressivegan", description=__doc__ and _ABOUT)
        return command.run() or 0
    except ExpressiveGANError as error:
        print(f"expressivegan: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("expressivegan: interrupted", file=sys.stderr)
        return 130
    except Stopped as stopped:
        print(f"expressivegan: {stopped}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read our output has read enough
        sys.stderr = None
        return 0
    except OSError as error:
        if error.errno is None:
            raise
        where = "" if error.filename is None else f"{error.filename}: "
        print(f"expressivegan: {where}{error.strerror}", file=sys.stderr)
        return 2


_ABOUT = "Labelled synthetic chest X-rays with attention maps that act. Not for diagnosis."

if __name__ == "__main__":
    raise SystemExit(main())
