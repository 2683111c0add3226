"""SLURM pretended, a program by its name: ``slurm.py sbatch ...``, replaying what a real one said.

State is in ``$FAKE_SLURM``: a file for each element, what is to be said instead (``say.json``),
and all calls (``calls``).  Time goes on at each call: what waits begins as a process of this
machine, in its own session, and what has ended leaves the queue.  Words are those of SLURM 22.05.
"""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HOME = Path(os.environ["FAKE_SLURM"])
QUEUED = ("PENDING", "RUNNING")
NODES = ("n1", "n2", "n3")


def load() -> dict[str, dict[str, Any]]:
    files = sorted(HOME.glob("*_*.json"), key=lambda file: [*map(int, file.stem.split("_"))])
    return {file.stem: json.loads(file.read_text()) for file in files}


def save(name: str, element: dict[str, Any]) -> None:
    (HOME / f"{name}.json").write_text(json.dumps(element))


def say_instead(program: str) -> None:
    """Say what a test has put down for this call, if it has."""
    file = HOME / "say.json"
    said = json.loads(file.read_text()) if file.exists() else {}
    answers = said.get(program) or []
    if not answers:
        return
    answer = answers.pop(0)
    file.write_text(json.dumps(said))
    if answer is not None:  # None: this call is an ordinary one
        print(answer, file=sys.stderr)
        sys.exit(1)


def begin(name: str, element: dict[str, Any]) -> None:
    array, task = name.split("_")
    own = {"SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": task, "SLURM_JOB_ID": name}
    rc, pid = HOME / f"{name}.rc", HOME / f"{name}.pid"
    rc.unlink(missing_ok=True)
    shell = (
        f"bash {element['script']} & echo $! > {pid}; wait $!; echo $? > {rc}.new; mv {rc}.new {rc}"
    )
    with open(element["output"].replace("%a", task).replace("%%", "%"), "ab") as log:
        subprocess.Popen(
            ["bash", "-c", shell],
            env={**os.environ, **own},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    element.update(state="RUNNING", reason="None", node=NODES[int(task) % 3], began=True)


def go_on() -> None:
    """Let time go on."""
    elements = load()
    running = dict[int, int]()
    for name, element in elements.items():
        rc = HOME / f"{name}.rc"
        if element["state"] == "RUNNING" and rc.exists():
            code = int(rc.read_text())
            if element.get("requeue"):
                element.update(state="PENDING", reason="BeginTime", node="", requeue=False)
            else:
                ended = element.get("as") or ("FAILED" if code else "COMPLETED")
                by = code - 128 if code > 128 else 0
                element.update(state=ended, exit=f"0:{by}" if by else f"{code}:0")
            save(name, element)
        if element["state"] == "RUNNING":
            running[element["array"]] = running.get(element["array"], 0) + 1
    held = (HOME / "hold").exists()
    for name, element in elements.items():
        full = running.get(element["array"], 0) >= (element["throttle"] or 10**6)
        if (
            element["state"] == "PENDING"
            and element["reason"] != "BeginTime"
            and not (held or full)
        ):
            begin(name, element)
            running[element["array"]] = running.get(element["array"], 0) + 1
            save(name, element)


def sbatch(words: list[str]) -> None:
    options = dict(
        re.findall(r"--([\w-]+)(?:=(.*))?", word)[0] for word in words if word[:2] == "--"
    )
    if "test-only" in options:
        return
    array = max((int(name.split("_")[0]) for name in load()), default=0) + 1
    size, _, throttle = options["array"].removeprefix("0-").partition("%")
    limit = HOME / "most"
    if limit.exists():
        most, queued = int(limit.read_text()), sum(e["state"] in QUEUED for e in load().values())
        if queued + int(size) + 1 > most:
            sys.exit(
                "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission "
                "failed: Job violates accounting/QOS policy (job submit limit, user's size and/or "
                "time limits)"
            )
    script = HOME / f"{array}.script"  # SLURM keeps what it was handed
    script.write_bytes(Path(words[-1]).read_bytes())
    for task in range(int(size) + 1):
        save(f"{array}_{task}", {
            "array": array, "state": "PENDING", "reason": "None", "node": "",
            "name": options["job-name"], "script": str(script), "output": options["output"],
            "throttle": int(throttle or 0), "began": False, "options": options,
        })  # fmt: skip
    print(array)


def squeue(words: list[str]) -> None:
    for name, element in load().items():
        if element["state"] in QUEUED:
            array, task = name.split("_")
            print(array, task, element["state"], element["reason"], element["node"],
                  element["name"], sep="|")  # fmt: skip
    print("77|N/A|PENDING|Priority||somebody's own, not ours|")


def scancel(words: list[str]) -> None:
    waiting = "--state=PENDING" in words
    for name in (word for word in words if not word.startswith("--")):
        element = load().get(name)
        if element is None:
            sys.exit(f"scancel: error: Kill job error on job id {name}: Invalid job id specified")
        if element["state"] == "PENDING":
            (HOME / f"{name}.json").unlink()  # measured: it is not known any more
        elif element["state"] == "RUNNING" and not waiting:
            element["as"] = "CANCELLED"
            save(name, element)
            os.kill(pid_of(name), signal.SIGTERM)


def pid_of(name: str) -> int:
    file = HOME / f"{name}.pid"
    while not (file.exists() and file.read_text().strip()):
        time.sleep(0.01)
    return int(file.read_text())


def scontrol(words: list[str]) -> None:
    verb, *rest = words
    if rest == ["config"]:
        print("MaxArraySize            = 1001\nMaxJobCount             = 10000")
        return
    name = (rest[1] if verb == "show" else rest[0]).removeprefix("jobid=")
    element = load().get(name)
    if element is None:
        print(f"Job {name} not found")
        sys.exit("slurm_load_jobs error: Invalid job id specified")
    if verb == "show":
        print(
            f"JobId=2 ArrayJobId={element['array']} ArrayTaskId=0 JobName={element['name']} "
            f"UserId=root(0) JobState={element['state']} Reason=None Dependency=(null) "
            f"ExitCode={element.get('exit', '0:0')} NodeList={element['node']} BatchHost=n1"
        )
    elif verb == "requeue":
        element["requeue"] = True
    elif verb == "update":
        element["reason"] = "None"
    save(name, element)


if __name__ == "__main__":
    program, arguments = sys.argv[1], sys.argv[2:]
    with (HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with (HOME / "calls").open("a") as calls:
            calls.write(json.dumps([program, *arguments]) + "\n")
        say_instead(program)
        go_on()
        globals()[program](arguments)
