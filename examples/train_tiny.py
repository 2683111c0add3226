"""A training script of another style: a line by gradient descent, with numpy, resumed by itself."""

import argparse
import json
from pathlib import Path

import numpy as np

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, required=True)
parser.add_argument("--lr", type=float, required=True)
parser.add_argument("--out", type=Path, required=True)
parser.add_argument("--steps", type=int, default=200)
args = parser.parse_args()

random = np.random.default_rng(args.seed)
x, noise = random.normal(size=256), random.normal(size=256)
y, saved = 3 * x + 1 + noise, args.out / "saved.json"
start, slope, offset, curve = json.loads(saved.read_text()) if saved.exists() else (0, 0.0, 0.0, [])
for step in range(start + 1, args.steps + 1):
    error = slope * x + offset - y
    slope, offset = slope - args.lr * (error * x).mean(), offset - args.lr * error.mean()
    if step % 50 == 0:
        curve.append([step, (error**2).mean()])
        saved.with_suffix(".new").write_text(json.dumps([step, slope, offset, curve]))
        saved.with_suffix(".new").replace(saved)  # whole, whenever it is killed
        with (args.out / "progress.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, "steps": args.steps}) + "\n")
result = {"metrics": {"loss": curve[-1][1]}, "curve": {"loss": curve}, "steps": args.steps}
(args.out / "result.json").write_text(json.dumps(result))
