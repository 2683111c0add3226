"""A run pretended, without torch: what each attempt does stands in ``$FAKE_SLURM/courses.json``.

It is begun as Python is by the engine: ``cell.py -P -m MODULE N.jobs DEVICE THREADS``.  So are
errands, whose answer stands in ``answer.json``, or whose exit code in ``answer.exit``.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

HOME = Path(os.environ["FAKE_SLURM"])
if sys.argv[3].endswith(".errands"):
    asked, fails = Path(sys.argv[4]), HOME / "answer.exit"
    if fails.exists():
        sys.exit("ImportError: no torch" if fails.read_text() == "1" else int(fails.read_text()))
    half = asked.with_suffix(".half")
    half.write_text((HOME / "answer.json").read_text())
    half.rename(asked.with_suffix(".answer"))
    sys.exit(0)
jobs, task = Path(sys.argv[4]), os.environ["SLURM_ARRAY_TASK_ID"]
job = json.loads(jobs.read_text().splitlines()[int(task)])
known = json.loads((HOME / "courses.json").read_text())
command, path = job["command"], Path(job["path"])
record = known["record"] | {
    "variant": command["variant"], "seed": command["seed"], "config_digest": job["digest"],
    "config": {"program": command["program"]},
}  # fmt: skip
events, stop = (jobs.with_name(f"{jobs.stem}-{task}.{end}") for end in ("events", "stop"))
heard = list[str]()
JOB = os.environ.get("SAGAN_BENCH_JOB")
path.mkdir(parents=True, exist_ok=True)
begun = path / ".attempts"
number = int(begun.read_text()) if begun.exists() else 0
begun.write_text(str(number + 1))
course = known["courses"].get(job["id"], [])
actions = course[number] if number < len(course) else ["finish"]
file = path / "record.json"
earlier: dict[str, Any] = (
    json.loads(file.read_text()) if file.exists() else {"attempts": [], "step": 0}
)
step = first = earlier["step"]


def write(status: str, reason: str | None = None) -> None:
    own = {"started": "2026-01-01T00:00:00Z", "from_step": first, "job": JOB}
    if status != "running":
        own |= {"ended": "2026-01-01T00:01:00Z", "to_step": step, "outcome": status}
    new = {**record, "run": path.name, "status": status, "reason": reason, "step": step,
           "steps": 100, "attempts": [*earlier["attempts"], own]}  # fmt: skip
    half = path / ".half"
    half.write_text(json.dumps(new))
    half.rename(file)


def tell(**said: Any) -> None:
    with events.open("a") as opened:
        opened.write(json.dumps({"version": 1, **said}) + "\n")


def end(status: str, reason: str | None = None) -> None:
    write(status, reason)
    tell(ended=[status, reason])
    sys.exit(0)


signal.signal(signal.SIGTERM, lambda *_: heard.append("preempted or cancelled in SLURM"))
signal.signal(signal.SIGUSR1, lambda *_: heard.append("the time limit of the SLURM job"))
for action in actions:
    word, _, rest = action.partition(" ")
    if word == "step":
        step = int(rest)
        write("running")
        tell(step=[step, None])
    elif word == "wait":
        while not (heard or stop.exists()):
            time.sleep(0.01)
        end("interrupted", stop.read_text() if stop.exists() else heard[0])
    elif word == "print":
        print(rest, flush=True)
    elif word == "kill":
        os.kill(os.getpid(), int(rest))
    elif word == "exit":
        sys.exit(int(rest))
    elif word == "finish":
        step = 100
        end("finished")
    elif word == "fail":
        end("failed", rest)
    elif word == "lost":
        end("interrupted", rest)
