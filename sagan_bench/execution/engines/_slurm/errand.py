"""An errand as a job of SLURM: handed over, waited for, its answer read."""

import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path

from sagan_bench.core.errors import UserError
from sagan_bench.core.files import atomic_write
from sagan_bench.execution import code, errands
from sagan_bench.execution.engine import Place
from sagan_bench.execution.engines._slurm import endings, queue
from sagan_bench.execution.engines._slurm.folder import Folder
from sagan_bench.execution.engines._slurm.queue import End, Refused, Unreachable
from sagan_bench.execution.engines._slurm.settings import Settings
from sagan_bench.execution.errands import ANSWER, Answer, Errand
from sagan_bench.runs import log
from sagan_bench.session.examination import Finding

PROGRAM = errands.__name__
SECONDS_BETWEEN_LOOKS = 10.0
"""At the queue, at most: at first more often."""
SECONDS_FOR_AN_ANSWER = 60.0
"""After the job has ended: another machine's file may be seen so late."""
SECONDS_TO_SLEEP = 0.1
OVER = "it has ended, and its answer is awaited"


def sent(place: Place, settings: Settings, errand: Errand, tell: Callable[[str], None]) -> Answer:
    """Have an errand done by a job, and return its answer.

    Args:
        place: an experiment's; its folder is made if it is not there.
        settings: of the engine.
        errand: what is to be done.
        tell: often told what is waited for; what it raises takes the job out of the queue.

    Raises:
        UserError: SLURM refuses the job, or it ended without an answer.
    """
    folder = Folder(place.folder)
    file = folder.path / f"errand-{secrets.token_hex(4)}.json"
    try:
        text = errands.written(errand, folder.path)  # which makes the folder
        atomic_write(file, text.encode())
        script = file.with_suffix(".sh")
        own = [
            "--array=0-0", f"--job-name=sagan-{folder.key}-errand",
            queue.log_at(file.parent, f"{file.stem}.log"),
        ]  # fmt: skip
        words = settings.script(code.copied(folder.path), PROGRAM, file)
        atomic_write(script, words.encode())
        try:
            job = f"{queue.submit(script, [*own, *settings.options()])}_0"
        except (Refused, Unreachable) as error:
            raise UserError(f"SLURM took no job: {error}; nothing was begun") from None
        return errands.answered(_awaited(job, file, tell))
    finally:
        for left in file.parent.glob(f"{file.stem}.*"):
            left.unlink(missing_ok=True)


def _awaited(job: str, file: Path, tell: Callable[[str], None]) -> str:
    """Return the answer of a job once it is there.  Raises as `sent`."""
    answer, stands, looks_at, ended_at = file.with_suffix(ANSWER), "handed over", -inf, inf
    end: End | None = None
    began = time.monotonic()
    try:
        while not answer.exists():
            tell(stands)
            now = time.monotonic()
            if now >= looks_at and ended_at == inf:
                looks_at = now + min(SECONDS_BETWEEN_LOOKS, max(1.0, now - began))
                stands, end = _look(job, stands)
                ended_at = now if stands == OVER else inf
            failed = end is not None and end.state != "COMPLETED"
            if failed or now - ended_at > SECONDS_FOR_AN_ANSWER:
                if answer.exists():
                    break
                raise UserError(_why(end, file))
            time.sleep(SECONDS_TO_SLEEP)
    except BaseException:
        queue.end(job)
        raise
    return answer.read_text()


def _look(job: str, before: str) -> tuple[str, End | None]:
    """Return how a job stands in the queue, in words; `OVER` and its end if it is not there."""
    try:
        for element in queue.elements():
            if element.id == job:
                why = "" if element.reason == "None" else f": {element.reason}"
                return f"queued{why}" if element.waits else f"on {element.node}", None
        end = queue.end_of(job)
    except Unreachable as error:
        return f"SLURM does not answer ({error})", None
    except Refused as error:
        raise UserError(f"squeue: {error}; give the command again") from None
    return (before, None) if end and end.state in endings.UNDER_WAY else (OVER, end)


def _why(end: End | None, file: Path) -> str:
    """Return why a job left no answer."""
    if end and end.signal == endings.NO_LOG:
        return errands.unseen(end.node, file.parent.parent)
    if end and end.state == "TIMEOUT":
        return "a job on a node came to its time limit before it answered; raise time"
    lines = log.last_lines(file.with_suffix(".log"))
    said = f"; the end of its log:\n{lines}" if lines else "; its log is empty"
    return f"a job on a node left no answer: {endings.words(end)}{said}"


# --- Where it is handed over ---


def examined(place: Place, settings: Settings) -> Iterator[Finding]:
    """Yield what is found here of what the engine needs: programs, and whether jobs are taken."""
    if missing := [program for program in queue.PROGRAMS if shutil.which(program) is None]:
        text = f"no program {', '.join(missing)} is here; give the command on a login node"
        yield Finding("SLURM", False, True, text)
        return
    yield Finding("SLURM", True, True, f"{', '.join(queue.PROGRAMS)} are here")
    try:
        yield _tried(place.folder, settings)
        most = queue.most_in_an_array()
    except Unreachable as error:
        yield Finding("controller", False, True, f"SLURM does not answer: {error}")
        return
    yield Finding("arrays", True, False, f"of up to {most:,} runs")


def _tried(folder: Path, settings: Settings) -> Finding:
    script, options = folder / "tried.sh", settings.options()
    given = " ".join(options)
    atomic_write(script, settings.script(folder, PROGRAM).encode())
    try:
        queue.try_out(script, options)
    except Refused as refused:
        return Finding("sbatch", False, True, f"refuses {given}: {refused}")
    finally:
        script.unlink()
    return Finding("sbatch", True, True, f"takes {given}")
