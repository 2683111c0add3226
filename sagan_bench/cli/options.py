"""The options that verbs share: those that choose a configuration are a table."""

import functools
import inspect
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

import typer
from typer.core import TyperCommand

from sagan_bench.cli import completing
from sagan_bench.cli.console import say
from sagan_bench.config import seeds
from sagan_bench.core.errors import UserError
from sagan_bench.core.names import closest
from sagan_bench.core.registry import EXTRACTORS, LOSSES, TRACKERS

if TYPE_CHECKING:
    from sagan_bench.config.layers import Resolved
    from sagan_bench.config.variants import Meant
    from sagan_bench.core.extensions import Extension

S = TypeVar("S", bound=str)
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout")]
Runs = Annotated[Path, typer.Option("--runs", help="Folder of runs")]
RunName = Annotated[
    str, typer.Argument(help="A run's folder, or its name", autocompletion=completing.run)
]
RunOrStudy = Annotated[
    str,
    typer.Argument(
        metavar="RUN|STUDY",
        help="A run, a study, or a folder of runs",
        autocompletion=completing.place,
    ),
]
Weights = Annotated[str, typer.Option(help="ema or raw")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="section.key=value")]
WITH = "Python file of components of your own, repeatable"
With = Annotated[list[Path] | None, typer.Option("--with", help=WITH)]
PRESET_FILE = "TOML file of presets of your own; --preset chooses"
PresetFile = Annotated[Path | None, typer.Option("--preset-file", help=PRESET_FILE)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would run; do nothing")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda")]
RetryFailed = Annotated[bool, typer.Option(help="Run again what failed")]
Storage = Annotated[
    str | None, typer.Option(help="URL of a database \\[default: a journal in the folder]")
]

MOST_SUGGESTED = 3
"""Settings for an option that is none."""

SEED_DATASETS = {
    "celeb": ("celeba64", "celeba:{}/CelebA"),
    "lsun": ("lsun64", "lsun:{}#church_outdoor_train"),
}
"""The seed project's ``--dataset`` -> our preset, and what it reads under its ``--image_path``."""


class Flag(NamedTuple):
    """An option that sets one key of the configuration."""

    option: str
    key: str
    kind: type
    help: str
    aliases: tuple[str, ...] = ()
    """The same under the names of the seed project, and of other verbs; hidden."""
    yes: Any = True
    """What the key is set to by an option without a value."""
    no: Any = False
    """Likewise by its ``--no-``."""

    def value(self, given: Any) -> Any:
        """Return what the key is set to by what was given."""
        return given if self.kind is not bool else self.yes if given else self.no


def either(names: Iterable[str]) -> str:
    """Return names as ``a, b or c``."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


FLAGS = (
    Flag("--data", "data.source", str, "e.g. twins, folder:PATH, celeba:PATH; see: data list"),
    Flag("--image-size", "data.image_size", int, "Side in pixels: 32, 64, 128, 256", ("--imsize",)),
    Flag("--batch-size", "training.batch_size", int, "Images a step", ("--batch_size",)),
    Flag("--micro-batch", "training.micro_batch", int, "Of these, so many at a time"),
    Flag("--loss", "training.loss", str, either(LOSSES), ("--adv_loss",)),
    Flag("--steps", "run.steps", int, "Generator updates to reach", ("--total_step",)),
    Flag("--seed", "seed", int, "Of weights, noise and data order", ("--seeds",)),
    Flag("--sample-every", "run.sample_every", int, "Steps between grids", ("--sample_step",)),
    Flag("--eval-every", "run.eval_every", int, "Steps between scores on the way"),
    Flag("--score-images", "evaluation.n_fake", int, "Generated images that are scored"),
    Flag(
        "--score",
        "run.score_weights",
        bool,
        "Score the run at its end; if not, evaluate does",
        yes=("ema",),
        no=(),
    ),
    Flag("--name", "name", str, "Name of the run \\[default: the variant's]", ("--version",)),
    Flag("--precision", "training.precision", str, "auto, fp32, tf32 or bf16"),
    Flag("--compile", "training.compile", bool, "Compile the networks with torch.compile"),
    Flag("--device", "run.device", str, "auto, cpu, cuda or cuda:N"),
    Flag("--threads", "run.threads", int, "CPU threads \\[default: one a core]"),
    Flag("--skip-bad", "run.skip_bad", bool, "Leave unreadable pictures out"),
    Flag("--track", "run.track", str, f"Follow it with {either((*TRACKERS, 'NAME'))}, of --with"),
    Flag("--tensorboard", "run.tensorboard", bool, "Short for --track tensorboard"),
    Flag("--extractor", "evaluation.extractor", str, either(("auto", *EXTRACTORS))),
    Flag("--inception-weights", "run.inception_weights", str, "Inception's weights file"),
)
HIDDEN = (
    Flag("--z_dim", "model.z_dim", int, ""),
    Flag("--g_conv_dim", "model.width", int, ""),
    Flag("--lambda_gp", "training.gp_weight", float, ""),
    Flag("--g_lr", "training.lr_g", float, ""),
    Flag("--d_lr", "training.lr_d", float, ""),
    Flag("--beta1", "training.beta1", float, ""),
    Flag("--beta2", "training.beta2", float, ""),
    Flag("--log_step", "run.log_every", int, ""),
)


@dataclass(frozen=True)
class Choice:
    """What the user chose, not yet resolved."""

    preset: str | None
    preset_file: Path | None
    variant: str | None
    file: Path | None
    sets: tuple[str, ...]
    own: tuple[Path, ...]
    flags: dict[str, tuple[str, Any]]

    def of_variant(self, variant: str) -> "Choice":
        """Return the same choice of another variant."""
        return replace(self, variant=variant)

    def from_file(self, file: Path) -> "Choice":
        """Return the same choice over a file's settings.  Raises `UserError` if it has another."""
        if self.file:
            raise UserError(f"--config {self.file}: settings come from {file}; leave one out")
        return replace(self, file=file)

    def with_flag(self, option: str, key: str, value: Any) -> "Choice":
        """Return the same choice with a key set by one more option."""
        return replace(self, flags=self.flags | {key: (option, value)})

    def resolve(self) -> "Resolved":
        """Return the configuration for this machine, under its right name.  Raises `UserError`."""
        from sagan_bench.config.layers import decide, read

        own = {file.name: file.described for file in load_own(self.own)}
        from sagan_bench.session.capabilities import capabilities

        requested = read(
            preset=self.preset,
            names=load_presets(self.preset_file),
            variant=self.variant,
            file=self.file,
            sets=self.sets,
            flags=self.flags,
            own=own,
        )
        resolved = decide(requested, capabilities(requested.config))
        if (
            resolved.note and os.environ.get("RANK", "0") == "0"
        ):  # of torchrun's processes the first
            say(resolved.note, error=True)
        return resolved


def configured(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb whose first parameter is a `Choice` all the options that make one."""
    parameters = {p.name: p for p in _parameters()}
    own = list(inspect.signature(verb).parameters.values())[1:]

    @functools.wraps(verb)
    def wrapped(**values: Any) -> Any:
        ours = {name: values.pop(name) for name in parameters}
        return verb(_choice(ours), **values)

    merged = [*parameters.values(), *own]
    merged = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in merged]
    wrapped.__signature__ = inspect.Signature(merged)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in merged}
    return wrapped


def _parameters() -> Iterator[inspect.Parameter]:
    where = "Where to begin, e.g. quick, twins64, celeba64; see: list presets"
    yield _parameter("--preset", str, where, completion=completing.preset)
    yield _parameter("--preset-file", Path, PRESET_FILE)
    what = "What to change, e.g. no-attention; see: list variants"
    yield _parameter("--variant", str, what, completion=completing.combined)
    yield _parameter("--config", Path, "TOML file of settings")
    yield _parameter("--set", list[str], "section.key=value, repeatable; see: show config")
    yield _parameter("--with", list[Path], WITH)
    for flag in FLAGS:
        kind = flag.kind
        declared = (f"{flag.option}/--no-{flag.option[2:]}",) if kind is bool else (flag.option,)
        how: dict[str, Any] = {"name": _name(flag.option), "of_seed": flag.key == "seed"}
        yield _parameter(*declared, kind=kind, text=flag.help, **how)
        for alias in flag.aliases:
            yield _parameter(alias, kind, "", hidden=True, of_seed=flag.key == "seed")
    for flag in HIDDEN:
        yield _parameter(flag.option, flag.kind, "", hidden=True)
    yield _parameter("--dataset", str, "", hidden=True)
    yield _parameter("--image_path", Path, "", hidden=True)


def _parameter(
    option: str,
    kind: Any,
    text: str,
    *,
    name: str | None = None,
    hidden: bool = False,
    of_seed: bool = False,
    completion: completing.Completion | None = None,
) -> inspect.Parameter:
    how: dict[str, Any] = {"autocompletion": completion} if completion else {}
    if kind is int:
        how |= {"parser": partial(whole, option), "metavar": "INTEGER"}
    if of_seed:
        declared = seed(option, text, hidden=hidden)
    else:
        declared = typer.Option(option, help=text, hidden=hidden, **how)
    annotation = Annotated[kind | None, declared]
    return inspect.Parameter(
        name or _name(option), inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


def whole(option: str, text: str) -> int:
    """Return a whole number; typer's own reading makes -4 of 0-4.  Raises `UserError`."""
    if not re.fullmatch(r"[-+]?[0-9]{1,30}", str(text).strip()):  # a default is a number
        raise UserError(f"{option} {text}: expected a whole number")
    return int(text)


def seed(option: str, help_: str, *, hidden: bool = False, **for_several: str) -> Any:
    """Return the declaration of an option of one seed; ``for_several`` as `seeds.single` has it."""
    parser = partial(_read_seeds, option, partial(seeds.single, **for_several))
    return typer.Option(option, help=help_, hidden=hidden, metavar="INTEGER", parser=parser)


def several_seeds(option: str, help_: str) -> Any:
    """Return the declaration of an option of seeds."""
    parser = partial(_read_seeds, option, seeds.several)
    return typer.Option(option, help=help_, metavar="SEEDS", parser=parser)


def _read_seeds(option: str, read: Callable[[str], Any], text: Any) -> Any:
    """Return the seeds in a text.  Raises `UserError` with what is wrong, and what to do."""
    try:
        return read(str(text))  # a default is a number
    except ValueError as error:
        raise UserError(f"{option} {text}: {error}") from error


def _name(option: str) -> str:
    """Return a parameter's name that no other option shares: ``--imsize`` -> ``opt_imsize``."""
    return "opt_" + option.removeprefix("--").replace("-", "__")


def _choice(values: dict[str, Any]) -> Choice:
    flags: dict[str, tuple[str, Any]] = {}
    preset = values[_name("--preset")]
    if dataset := values[_name("--dataset")]:
        preset, flags["data.source"] = _seed_dataset(dataset, preset, values[_name("--image_path")])
    for flag in (*FLAGS, *HIDDEN):
        for option in (*flag.aliases, flag.option):
            if (value := values[_name(option)]) is None:
                continue
            of, before = flags.setdefault(flag.key, (option, flag.value(value)))
            if before != flag.value(value):
                raise UserError(f"{of} and {option} both set {flag.key}; give one of them")
    return Choice(
        preset=preset,
        preset_file=values[_name("--preset-file")],
        variant=values[_name("--variant")],
        file=values[_name("--config")],
        sets=tuple(values[_name("--set")] or ()),
        own=tuple(values[_name("--with")] or ()),
        flags=flags,
    )


def _seed_dataset(
    dataset: str, preset: str | None, image_path: Path | None
) -> tuple[str, tuple[str, str]]:
    if dataset not in SEED_DATASETS:
        known = closest(dataset, list(SEED_DATASETS), "use --data (twins, folder:PATH)")
        raise UserError(f"--dataset {dataset}: {known}")
    seed_preset, source = SEED_DATASETS[dataset]
    return preset or seed_preset, ("--dataset", source.format(image_path or Path("data")))


class Verb(TyperCommand):
    """A verb that suggests its own options and settings for one it lacks, and nothing hidden."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse as typer does, with suggestions that `--help` shows too."""
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            if not hasattr(error, "possibilities"):
                raise
            hidden = {o for p in self.params if getattr(p, "hidden", False) for o in p.opts}
            shown = [option for option in error.possibilities or () if option not in hidden]
            if "--preset" in (option for p in self.params for option in p.opts):
                shown += self._settings(str(getattr(error, "option_name", "")))
            error.possibilities = shown
            raise

    @staticmethod
    def _settings(option: str) -> list[str]:
        """Return what sets a key whose last part is called as the option, or begins so."""
        from sagan_bench.config.schema import field_types

        name = option.lstrip("-").replace("-", "_")
        last = ((key, key.rpartition(".")[2]) for key in field_types())
        known = [key for key, own in last if name and (own == name or own.startswith(f"{name}_"))]
        return [f"--set {key}=..." for key in known[:MOST_SUGGESTED]]


def load_own(files: Iterable[Path] | None) -> "list[Extension]":
    """Have the components in files, and of installed packages, known.

    Raises:
        UserError: one cannot be, with the line that is wrong.
    """
    from sagan_bench.config.variants import refuse_taken
    from sagan_bench.core import extensions

    chosen = [*dict.fromkeys(files or ())]
    for stem in (file.stem for file in chosen):
        alike = [file for file in chosen if file.stem == stem]
        if len({file.resolve() for file in alike}) > 1:
            paths = " and ".join(map(str, alike))
            raise UserError(f"two files are called {stem}: {paths}; rename one of them")
    extensions.load_installed()
    loaded = [extensions.load(file) for file in chosen]
    for extension in loaded:
        refuse_taken(extension.components, extension.file)
    return loaded


def load_presets(file: Path | None) -> "Meant":
    """Return the presets in a file, if there is one.  Raises `UserError`: what is wrong in it."""
    from sagan_bench.config import preset_files
    from sagan_bench.config.variants import NOTHING

    return preset_files.load(file) if file else NOTHING


def refuse_wrong(files: "Iterable[Extension]") -> None:
    """Refuse files of components that are not what they say, before anything trains with them."""
    for extension in {file.name: file for file in files}.values():
        from sagan_bench.experiments import conformance

        say(f"checking {extension.file}", error=True)
        conformance.require(extension)


def program() -> str:
    """Return how this program was called, for hints on what to call next."""
    return "sagan-bench" if Path(sys.argv[0]).name == "sagan-bench" else "python cli.py"


def command(*words: object) -> str:
    """Return a command line of this program, for the user to copy: odd names are quoted."""
    return f"{program()} {shlex.join(map(str, words))}"


def pick(option: str, value: str, known: Sequence[S]) -> S:
    """Return the value of an option if it is known.  Raises `UserError` with the closest."""
    if value not in known:
        raise UserError(f"{option} {value}: {closest(value, known)}")
    return known[known.index(value)]
