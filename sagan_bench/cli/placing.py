"""The options that say where runs are made, which some verbs share: a table of them."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_type_hints

import typer


class Wanted(NamedTuple):
    """Where runs are to be made, as it is typed."""

    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time \\[default: one a GPU, or a core]")
    ] = None
    device: Annotated[str, typer.Option(help="auto (every GPU), cpu, cuda:N")] = "auto"
    engine: Annotated[str, typer.Option(help="What makes the runs: an engine, or a profile")] = (
        "processes"
    )
    engines: Annotated[
        Path | None, typer.Option(help="File of profiles \\[default: engines.toml]")
    ] = None
    slurm: Annotated[
        str | None, typer.Option(help="For sbatch: partition=gpu,time=8:00:00,gres=gpu:1")
    ] = None
    address: Annotated[
        str | None, typer.Option(help="Of Ray: HOST:6379 of its head \\[default: auto]")
    ] = None
    cpus_per_cell: Annotated[
        int | None, typer.Option(help="Cores of a run in Ray \\[default: 1]")
    ] = None
    gpus_per_cell: Annotated[
        float | None, typer.Option(help="Of a GPU, e.g. 0.25, for a run in Ray \\[default: none]")
    ] = None
    detach: Annotated[
        bool, typer.Option("--detach", help="Hand the runs to a cluster, and leave")
    ] = False
    stop: Annotated[
        bool, typer.Option("--stop", help="End its runs on a cluster, which they keep")
    ] = False
    in_process: Annotated[bool, typer.Option(help="Make the runs in this process", hidden=True)] = (
        False
    )

    def settings(self) -> dict[str, object]:
        """Return what is laid over a profile.  Raises `UserError`."""
        over = {name: getattr(self, name) for name in ("address", "cpus_per_cell", "gpus_per_cell")}
        typed = {name: value for name, value in over.items() if value is not None}
        if self.slurm is None:
            return typed
        from sagan_bench.execution.engines._slurm.settings import typed as options

        return {**typed, "sbatch": options(self.slurm)}


ENGINE = ("engine", "engines", "slurm", "address", "cpus_per_cell", "gpus_per_cell")
"""Of them, those that say which engine, and how it is set up."""


def with_place(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return what gives a verb with a parameter ``wanted`` options of `Wanted` in its place.

    Args:
        names: of the options; all if there are none.
    """
    hints, defaults = get_type_hints(Wanted, include_extras=True), Wanted._field_defaults
    keyword = inspect.Parameter.KEYWORD_ONLY
    shared = [
        inspect.Parameter(name, keyword, default=defaults[name], annotation=hints[name])
        for name in names or Wanted._fields
    ]

    def given(verb: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(verb)
        def wrapped(**values: Any) -> Any:
            wanted = Wanted(**{option.name: values.pop(option.name) for option in shared})
            return verb(**values, wanted=wanted)

        merged = list[inspect.Parameter]()
        for parameter in inspect.signature(verb).parameters.values():
            own = [parameter.replace(kind=keyword)]
            merged += shared if parameter.name == "wanted" else own
        wrapped.__signature__ = inspect.Signature(merged)  # type: ignore[attr-defined]
        wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in merged}
        return wrapped

    return given
