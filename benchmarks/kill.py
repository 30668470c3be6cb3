"""`kill -9` at random moments of prepare, train, export and daily: run again, each ends as if nothing had happened.

    python benchmarks/kill.py --kills 10

Of each command an unbroken run says how long it takes, where it first writes a file and what it leaves. Then it is
killed at moments drawn from that time and started again until it ends; `daily` is killed so in each of its parts, which
it tells by what it prints: prepare, train, gate, export, publish. What must be the same: prepare's fingerprint,
train's weights and optimizer states to the last bit, the vectors and the answers of what export and daily publish, the
documents of the day, and the names of all files and folders, so that nothing is left behind. `prepare` replaces a
directory that is there. Prints a line a kill and a summary; the exit code is 1 if anything differs.

Expected: no difference.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import pyarrow.parquet as pq

USERS = 12_000
STEPS = ("prepare", "train", "export", "daily")
PARTS = {"prepare": ": prepared ", "train": ": trained ", "gate": ": judged", "export": ": exported", "publish": None}


@dataclasses.dataclass(frozen=True)
class Step:
    """A command and what is held against its unbroken run.

    Args:
        command: Words after `tfmtr`.
        places: Folders that it writes, which every run finds as they are now.
        facts: Function that returns `{what: value}` of what it left.
        parts: `{part: word}` of the line that ends the part; the last part ends with the command.
    """

    command: Sequence[str]
    places: Sequence[Path]
    facts: Callable
    parts: Mapping[str, str | None] = dataclasses.field(default_factory=lambda: {"": None})


def make_steps(folder, names, num_users):
    """The steps of these names in a folder, with all that they need."""
    folder, steps = Path(folder), {}
    prepared, options = folder / "prepared" / "data", ("--num-users", "1000", "--num-titles", "60", "--overwrite")
    if "prepare" in names:
        command = ["prepare", "simulator", "--out", str(prepared), *options]
        check_ended([*command, "--seed", "1"])
        steps["prepare"] = Step(command, [prepared.parent], lambda: {"fingerprint": fingerprint(prepared)})
    if set(names) - {"prepare"}:
        from pipelines import daily_week

        log, service = daily_week.start(folder, num_users=num_users, units=(16, 8), batch_size=1024, epochs=6)
        log.write(daily_week.FIRST_DAY, daily_week.FIRST_DAY, is_open=False)
        data, run, day = folder / "data", folder / "trained" / "run", daily_week.date_of(1).isoformat()
        command = ["train", "--data", str(data), "--out", str(run), "--epochs", "3"]
        command += ["--units", "16,8", "--batch-size", "1024"]
        steps["train"] = Step(command, [run.parent], lambda: weights(run))
        out = folder / "exported" / "model"
        command = ["export", str(folder / "run"), "--titles", str(data), "--out", str(out)]
        steps["export"] = Step(command, [out.parent], lambda: answers(out, data))
        published, of_day = folder / "saved_models" / "two_tower", service / "days" / day
        command = ["daily", "--service", str(service), "--day", day, "--max-drop", "0.5", "--max-shift", "0.5"]
        steps["daily"] = Step(
            command, [service, published.parent],
            lambda: documents(service, of_day) | weights(of_day / "run") | answers(published, of_day / "data"),
            PARTS,
        )  # fmt: skip
    return {name: steps[name] for name in names}


def fingerprint(data):
    """What `tfmtr prepare` says that a directory holds."""
    return json.loads((data / "prepare.json").read_text())["fingerprint"]


def weights(run):
    """A digest of each file with a model's variables and optimizer state."""
    found = {}
    for file in sorted(run.glob("weights/*.npz")):
        with np.load(file) as arrays:
            parts = [name.encode() + arrays[name].tobytes() for name in sorted(arrays.files)]
        found[file.name] = hashlib.sha256(b"".join(parts)).hexdigest()
    return found


def documents(service, day):
    """The documents of a service's day, without what they tell of seconds."""
    files = [service / "live.json", *(day / name for name in ("day.json", "gate.json", "run/calibration.json"))]
    found = {file.name: json.loads(file.read_text()) for file in files}
    del found["day.json"]["seconds"]
    for stage in found["day.json"]["fitted"]["stages"].values():
        del stage["seconds"]
    return found


def answers(out, data, num_users=20):
    """The title vectors of the newest version, and what it answers some users."""
    from tfmtr.serving.recommendations import recommend
    from tfmtr.serving.server import Server
    from tfmtr.serving.versions import find_versions

    versions, _ = find_versions(out)
    titles = pq.read_table(versions[max(versions)] / "assets.extra" / "titles.parquet")
    users = pq.read_table(data / "users.parquet", columns=["user"])["user"].to_pylist()[:num_users]
    with Server(out, model_name="model", port=0) as server:
        address = f"127.0.0.1:{server.port}"
        found = {user: recommend(address, "model", data, user, k=5)["titles"] for user in users}
    return {"vectors": hashlib.sha256(repr(titles.to_pydict()).encode()).hexdigest(), "answers": found}


def tree(places):
    """Names of all files and folders, with versions and log files of TensorBoard by their kind."""
    names = {str(path.relative_to(place.parent)) for place in places for path in place.rglob("*")}
    names = {re.sub(r"events\.out\.tfevents\..*", "events.out.tfevents", name) for name in names}
    return sorted({re.sub(r"^(exported/model)/\d+", r"\1/VERSION", name) for name in names})


def start(command):
    """Starts `tfmtr` with these words."""
    words = [sys.executable, "-u", "-m", "tfmtr.cli", *command]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def check_ended(command):
    """Runs `tfmtr` with these words to its end; returns an error's last line, or an empty text."""
    with start(command) as process:
        _, text = process.communicate()
    return "" if process.returncode == 0 else f"exit code {process.returncode}: {text.strip().splitlines()[-1:]}"


class Trials:
    """Runs of one step, each from the same start.

    Args:
        step: The `Step`.
        kept: Folder for copies of its places.
    """

    def __init__(self, step, kept):
        self.step, self.kept = step, kept
        for place in step.places:
            place.mkdir(parents=True, exist_ok=True)
            shutil.copytree(place, kept / place.name)

    def reset(self):
        """Makes the places what they were."""
        for place in self.step.places:
            shutil.rmtree(place)
            shutil.copytree(self.kept / place.name, place)

    def unbroken(self):
        """`{part: (first second, last second)}` of the run, from the first change on, and what is left."""
        self.reset()
        before, began, changed = self.state(), time.perf_counter(), None
        with start(self.step.command) as process:
            lines = Lines(process)
            while process.poll() is None:
                if changed is None and self.state() != before:
                    changed = time.perf_counter() - began
                time.sleep(0.01)
            if process.returncode:
                raise RuntimeError(process.stderr.read())
        spans, first = {}, changed or 0.0
        for part, word in self.step.parts.items():
            last = (time.perf_counter() if word is None else lines.time_of(word)) - began
            spans[part], first = (first, last), last
        return spans, self.left()

    def state(self):
        """Names that show that something happens."""
        return {path.name for place in self.step.places for path in place.rglob("*")}

    def left(self):
        """What is there after a run."""
        return {"tree": tree(self.step.places), **self.step.facts()}

    def killed(self, part, moment):
        """Kills a run so many seconds after a part began, the first part after the command did.

        Returns:
            Whether the run still went on, and what is left once it was started again and has ended.
        """
        self.reset()
        parts = list(self.step.parts)
        with start(self.step.command) as process:
            lines, place = Lines(process), parts.index(part)
            if place:
                lines.wait_for(self.step.parts[parts[place - 1]])
            try:
                process.wait(moment)
            except subprocess.TimeoutExpired:
                process.kill()
        problem = check_ended(self.step.command)
        return process.returncode < 0, {"problem": problem} if problem else self.left()


class Lines:
    """What a process prints, and when.

    Args:
        process: The process, whose output is a pipe.
    """

    def __init__(self, process):
        self.found, self.changed = [], threading.Condition()
        threading.Thread(target=self._read, args=(process,), daemon=True).start()

    def _read(self, process):
        for line in process.stdout:
            with self.changed:
                self.found.append((time.perf_counter(), line))
                self.changed.notify_all()

    def time_of(self, word):
        """When the first line with a word came; `None` if there is none."""
        return next((moment for moment, line in self.found if word in line), None)

    def wait_for(self, word, seconds=300):
        """Waits for a line with a word."""
        with self.changed:
            if not self.changed.wait_for(lambda: self.time_of(word) is not None, seconds):
                raise RuntimeError(f"the command must print {word!r}")


def differences(expected, found):
    """Lines that say what is not as it was."""
    if "problem" in found:
        return [f"started again, it ended with {found['problem']}"]
    lines = [f"left behind: {name}" for name in sorted(set(found["tree"]) - set(expected["tree"]))]
    lines += [f"missing: {name}" for name in sorted(set(expected["tree"]) - set(found["tree"]))]
    names = sorted((expected.keys() | found.keys()) - {"tree"})
    return lines + [f"another {name}" for name in names if expected.get(name) != found.get(name)]


def main(folder, *, names=STEPS, parts=None, kills=10, seed=0, num_users=USERS, say=print):
    """Kills the commands of these names, all parts or some; returns the lines that say what was not as it was."""
    random, found = np.random.default_rng(seed), []
    for name, step in make_steps(folder, names, num_users).items():
        trials = Trials(step, Path(folder) / "kept" / name)
        spans, expected = trials.unbroken()
        seconds, first = max(last for _, last in spans.values()), min(first for first, _ in spans.values())
        say(f"{name}: {seconds:.1f} s, from {first:.1f} s on something is written")
        for place, (part, (begin, end)) in enumerate(spans.items()):
            if parts is not None and part not in parts:
                continue
            title = f"{name}, {part}" if part else name
            for moment in sorted(random.uniform(0 if place else begin, end - begin if place else end, kills)):
                is_killed, left = trials.killed(part, moment)
                lines = differences(expected, left)
                how = "killed" if is_killed else "ended before it was killed"
                say(f"{title}: {how} after {moment:.2f} s, started again: {'; '.join(lines) or 'the same'}")
                found += [f"{title}, killed after {moment:.2f} s: {line}" for line in lines]
        trials.reset()
    say(f"{kills} kills each of {', '.join(names)}: {len(found) or 'no'} differences")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="*", default=STEPS, help=f"of {', '.join(STEPS)}; all by default")
    parser.add_argument("--parts", nargs="*", help=f"of daily: {', '.join(PARTS)}; all by default")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-users", type=int, default=USERS, help="of the service")
    parser.add_argument("--folder", help="to work in; a temporary one by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        arguments = {"names": options.steps, "parts": options.parts, "kills": options.kills, "seed": options.seed}
        wrong = main(options.folder or temporary, num_users=options.num_users, **arguments)
    sys.exit(1 if wrong else 0)
