"""What ``ablate`` and ``tune`` share: where runs are made, from data to the end."""

import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import typer

from sagan_bench.cli.console import say
from sagan_bench.cli.placing import Wanted
from sagan_bench.cli.signals import LEAVING, POLITE, stopping
from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import ENGINES
from sagan_bench.core.stops import Stopped, StopReason

if TYPE_CHECKING:
    from sagan_bench.config.schema import Host, RunConfig
    from sagan_bench.core.progress import OnProgress
    from sagan_bench.execution.engine import Engine
    from sagan_bench.execution.profiles import Profile
    from sagan_bench.execution.slots import Slot
    from sagan_bench.runs.records import Record
    from sagan_bench.session.events import Stop

SECONDS_BETWEEN_LOOKS = 3.0

T = TypeVar("T")


class Where(NamedTuple):
    """Where runs are made, as the options say."""

    jobs: int | None
    device: str
    profile: "Profile"
    detach: bool = False
    engine: str = ""
    """As it is asked for: an engine, or a profile."""

    @classmethod
    def of(cls, wanted: Wanted) -> "Where":
        """Return what the options say.

        Raises:
            UserError: no engine or profile is called so, or options contradict each other.
        """
        from sagan_bench.execution import profiles

        jobs, device = wanted.jobs, wanted.device
        if wanted.in_process:
            return cls(jobs, device, profiles.Profile("inline"))
        profile = profiles.chosen(wanted.engine, wanted.engines, wanted.settings())
        if wanted.detach and not ENGINES[profile.kind].detaches:
            raise UserError(
                f"--detach: runs of --engine {wanted.engine} end with the command; choose --engine "
                "slurm, or hand the command itself to Ray: ray job submit --no-wait -- ..."
            )
        if profile.settings is None:
            return cls(jobs, device, profile)
        if ":" in device:
            raise UserError(
                f"--device {device}: which device a run has is the cluster's choice; ask for one "
                "by --slurm gres=gpu:1, --gpus-per-cell 1 or the profile, and leave --device out"
            )
        jobs = jobs or profile.settings.jobs
        settings = profile.settings.model_copy(update={"jobs": jobs})
        return cls(jobs, device, profile._replace(settings=settings), wanted.detach, wanted.engine)

    def host(self, config: "RunConfig", folder: Path, *, dry_run: bool = False) -> "Host":
        """Return what is offered to a configuration where the runs of an experiment are made.

        A node of a cluster is asked if that matters, but for a dry run, which goes by this machine.

        Raises:
            UserError: the device is not there, or the node will not do.
        """
        from sagan_bench.config.layers import depends_on_machine, override
        from sagan_bench.session.capabilities import capabilities

        there = override(config, {"run.device": ("--device", self.device)})
        if self.profile.settings is None:
            return capabilities(there)
        if not depends_on_machine(config):
            return capabilities(config)
        if not dry_run:
            from sagan_bench.cli.errands import host_of

            return host_of(self, folder, there)
        host = capabilities(config)
        say(
            f"auto is as on this machine: {words_of(host)}; when it begins, a node of "
            f"{self.engine} is asked",
            error=True,
        )
        return replace(host, tf32=True)  # nothing is refused for what a node may have

    def prepare(self, config: "RunConfig", folder: Path) -> None:
        """Have the images of an experiment made ready by a node, where they are not yet.

        Nothing if its runs are made on this machine.  Raises `UserError` as `host`.
        """
        if self.profile.settings is not None:
            from sagan_bench.cli.errands import prepare

            prepare(self, folder, config)

    def refuse_slow(self, records: "Iterable[Record | None]") -> None:
        """Refuse settings of a cluster that do not do for steps as slow as those of runs before.

        Raises:
            UserError: a run would not come to the end of a step after its notice.
        """
        known = (record.step_sec for record in records if record)
        slowest = max((seconds for seconds in known if seconds), default=0.0)
        if self.profile.settings is not None:
            self.profile.settings.refuse_steps_of(slowest)

    def say_of_emulated(self, configs: "Iterable[RunConfig]") -> None:
        """Say once if runs that are to be made on this machine would emulate bf16."""
        from sagan_bench.config.layers import override
        from sagan_bench.session.capabilities import emulated

        if self.profile.settings is not None:
            return  # a node has other hardware: the log of each run says it
        there = (override(each, {"run.device": ("--device", self.device)}) for each in configs)
        for text in dict.fromkeys(filter(None, map(emulated, there))):
            say(text, error=True)

    def slots(self, runs: int) -> "list[Slot]":
        """Return the room for so many runs; on a cluster as many as may run at a time."""
        from sagan_bench.execution.slots import slots

        if self.profile.settings is None:
            return slots(self.jobs, self.device, runs)
        slot = slots(1, "auto", 1)[0]._replace(threads=self.profile.settings.threads)
        return [slot] * (self.jobs or max(runs, 1))


def words_of(host: "Host") -> str:
    """Return what ``auto`` means, in words."""
    return f"{'bf16' if host.bf16 else 'fp32'}, {host.extractor}"


def carry_out(
    folder: Path,
    where: Where,
    runs: int,
    prepared: "Callable[[OnProgress], T]",
    run: "Callable[[T, Engine, Stop, int | None], None]",
    *,
    ahead: int,
) -> T:
    """Prepare the data of an experiment and make its runs; end the command if asked to stop.

    Args:
        folder: of the experiment, which no other process may run.
        where: its runs are made.
        runs: of the whole experiment; slots beyond would stay empty.
        prepared: prepares the data, and returns what is then to be run.
        run: runs that in an engine, so many at a time; None leaves that to a cluster.
        ahead: runs that a cluster may have at a time, with those that wait there.

    Returns:
        What was prepared.
    """
    from sagan_bench.cli.progress import View
    from sagan_bench.execution import engines
    from sagan_bench.execution.engine import Place
    from sagan_bench.experiments.driver import held

    leaves = ENGINES[where.profile.kind].detaches
    with stopping(LEAVING if leaves else POLITE) as stop, held(folder):
        with View() as view:
            ready = prepared(view.counter("images", stop))
        place = Place(folder, where.device, where.jobs, ahead if where.profile.settings else runs)
        with closing(engines.opened(where.profile, place, stop)) as engine:
            jobs = where.jobs if where.profile.settings else engine.free
            asked = (lambda: stop() or StopReason.DETACHED) if where.detach else stop
            try:
                run(ready, engine, asked, jobs)
            except Stopped as stopped:
                _leave(folder, engine, stopped)
    return ready


def _leave(folder: Path, engine: "Engine", stopped: Stopped) -> None:
    """Say what goes on without this command, and raise what ends it."""
    if engine.detaches:
        say(
            f"the runs of {folder} go on without this command; the same command again follows "
            "them and concludes, and with --stop ends them after checkpoints",
            error=True,
        )
    if str(stopped) == StopReason.DETACHED:
        raise typer.Exit
    raise stopped


def stop_runs(folder: Path) -> None:
    """Have the runs of an experiment on a cluster write checkpoints and end, and wait for that.

    Raises:
        UserError: the cluster cannot be asked.
    """
    from sagan_bench.execution import profiles

    clusters = [ENGINES[kind] for kind in profiles.elsewhere()]
    before = 0
    with stopping() as stop:
        while left := sum(engine.stop(folder, StopReason.INTERRUPTED) for engine in clusters):
            if left != before:
                say(f"{left} runs of {folder} are to write checkpoints and end", error=True)
            before = left
            if reason := stop():
                raise Stopped(reason, folder)
            time.sleep(SECONDS_BETWEEN_LOOKS)
    say(f"no run of {folder} is on a cluster; the same command without --stop goes on")
