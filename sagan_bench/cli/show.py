"""The verb ``show``: a run, a study, a variant, a configuration, or the layers of its networks."""

import json
from pathlib import Path
from typing import Annotated

import typer

from sagan_bench.cli import completing
from sagan_bench.cli.console import say
from sagan_bench.cli.options import Choice, Json, Runs, command, configured
from sagan_bench.cli.places import find_run
from sagan_bench.core.errors import UserError


@configured
def show(
    choice: Choice,
    what: Annotated[
        str,
        typer.Argument(
            help="config, model, variant, or the folder or name of a run, study or tuning",
            autocompletion=completing.shown,
        ),
    ],
    name: Annotated[
        str | None, typer.Argument(help="The variant", autocompletion=completing.combined)
    ] = None,
    baseline: Annotated[str, typer.Option(help="What to hold the variant against")] = "sagan",
    runs: Runs = Path("runs"),
    as_json: Json = False,
    log: Annotated[bool, typer.Option("--log", help="Of a run: what it printed")] = False,
) -> None:
    """Show a run, study, variant, the resolved configuration, or the layers of the networks."""
    if log:
        _show_log(_run_called(what, runs))
    elif what == "variant":
        _show_variant(choice, name or choice.variant or "sagan", baseline, as_json)
    elif what == "config":
        _show_config(choice, as_json)
    elif what == "model":
        _show_model(choice, as_json)
    else:
        _show_place(what, runs, as_json)


def _show_place(name: str, runs: Path, as_json: bool) -> None:
    """Show the study, tuning or run of that name or path."""
    from sagan_bench.experiments import study
    from sagan_bench.experiments.tuning import definition

    for folder in (Path(name), runs / name):
        if (folder / study.MEMORY).exists():
            from sagan_bench.cli.experiment import show_study

            show_study(folder, as_json)
            return
        if (folder / definition.MEMORY).exists():
            from sagan_bench.cli.tuned import print_tuning
            from sagan_bench.experiments.tuning.findings import of_tuning

            print_tuning(of_tuning(folder), folder, as_json)
            return
    _show_run(_run_called(name, runs), as_json)


def _run_called(name: str, runs: Path) -> Path:
    """Return the folder of a run.  Raises `UserError` with the verb for what else is called so."""
    from sagan_bench.config.variants import presets, variants
    from sagan_bench.experiments import studies, study
    from sagan_bench.experiments.tuning import definition

    try:
        return find_run(name, runs)
    except UserError as error:
        place = next((place for place in (Path(name), runs / name) if place.is_dir()), Path(name))
        others = {
            ("compare", place): (place / study.MEMORY).exists(),
            ("tune", "show", place): (place / definition.MEMORY).exists(),
            ("show", "variant", name): all(part in variants() for part in name.split("+")),
            ("show", "config", "--preset", name): name in presets(),
            ("ablate", name, "--dry-run"): name in studies.shipped(),
        }
        words = next((words for words, is_called_so in others.items() if is_called_so), None)
        if words is None:
            raise
        raise UserError(f"no run is called {name}; use: {command(*words)}") from error


def _show_run(path: Path, as_json: bool) -> None:
    from sagan_bench.analysis.gathering import scored
    from sagan_bench.cli.record import print_run
    from sagan_bench.core.stored import fitting
    from sagan_bench.runs.records import RECORD

    run = scored(path)
    if as_json:
        print(fitting(run.record.to_json, run.path / RECORD).decode(), end="")
    else:
        print_run(run)


def _show_log(path: Path) -> None:
    from sagan_bench.runs.log import lines_of

    for line in lines_of(path):
        say(line)


def _show_config(choice: Choice, as_json: bool) -> None:
    from sagan_bench.cli.tables import print_table
    from sagan_bench.core.trees import flatten

    resolved = choice.resolve()
    tree = resolved.config.model_dump(mode="json")
    if as_json:
        print(json.dumps({"config": tree, "origins": resolved.origins}, indent=2))
        return
    tree.pop("meant", None)  # what they set stands in the other rows
    rows = ([key, json.dumps(value), resolved.origins[key]] for key, value in flatten(tree))
    print_table("", ("setting", "value", "from"), rows)


def _show_variant(choice: Choice, name: str, baseline: str, as_json: bool) -> None:
    """Print what a variant changes, in words and as keys, and what that costs."""
    from sagan_bench.cli.tables import print_table
    from sagan_bench.config.diff import in_results
    from sagan_bench.config.naming import described
    from sagan_bench.experiments.ablation import counted

    config, against = (choice.of_variant(each).resolve().config for each in (name, baseline))
    changes = in_results(against, config)
    says = described(config)
    sides = {side.variant: side for side in (against, config)}  # the same of both is told once
    facts = {each: counted(side) for each, side in sides.items()}
    if as_json:
        costs = {each: fact.model_dump(mode="json") for each, fact in facts.items()}
        print(json.dumps({"says": says, "differences": changes, "facts": costs}, indent=2))
        return
    say(f"{config.variant}: {'; '.join(says)}")
    rows = [[key, json.dumps(old), json.dumps(new)] for key, old, new in changes]
    rows.append(["parameters", *(f"{f.parameters_g + f.parameters_d:,}" for f in facts.values())])
    rows.append(["FLOPs a step", *(f"{f.flops_per_step:,}" for f in facts.values())])
    print_table("", ("setting", *facts), rows)


def _show_model(choice: Choice, as_json: bool) -> None:
    from sagan_bench.cli.tables import print_table
    from sagan_bench.models.build import layout

    networks = layout(choice.resolve().config)
    totals = {
        network: {
            "parameters": networks.parameters(network),
            "flops": sum(row.flops for row in networks.layers if row.network == network),
        }
        for network in ("generator", "discriminator")
    }
    if as_json:
        layers = [row._asdict() for row in networks.layers]
        step = networks.flops_per_step
        print(json.dumps({"layers": layers, "totals": totals, "flops_per_step": step}, indent=2))
        return
    for network, total in totals.items():
        lines = [
            [
                row.name,
                " x ".join(map(str, row.output_shape)),
                f"{row.parameters:,}",
                f"{row.flops:,}",
            ]
            for row in networks.layers
            if row.network == network
        ]
        lines.append(["total", "", f"{total['parameters']:,}", f"{total['flops']:,}"])
        print_table(network, ("layer", "output", "parameters", "FLOPs an image"), lines)
