"""Whether the default's lists beat what people already have, and which of its parts do it.

    python studies/quality/study.py --source ../shared/data --work WORK        # hours on two cores
    python studies/quality/study.py --source ../shared/data --work WORK --sets xmarket --folds 1 --seeds 1
    python studies/quality/study.py --page                                      # the page from the lines

Each data set is prepared, trained on and evaluated by the three commands with no option but paths, columns, tasks,
`--fold i/n` and `--seed`: test users in turn until there are 3,000 lists, seeds 1 and 2 of the first of them, which is
fold 2. Beside the default stand all baselines; the towers alone (the default of before, the same towers); and the
default with one part of its list model taken out and the others left as they are. *Leave one out*: the settings among
which a data set chooses are those that another one chose.

A line a cell in `results.jsonl`; what was begun under `--work` goes on. The procedure is frozen: `frozen.json` has a
hash of the files that say how a list is ordered, the default recipe and the commands. A test window is read only where
it is theirs; `--freeze` writes it anew and throws all lines away.

Expected: the page `README.md`, with a row for each data set that says what was shown and what was not.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "pipelines"))

import cells
import numpy as np
import pandas as pd
from starting_line import ENOUGH, FOLDS, METRICS, SETS, in_general

from tfmtr.documents import read_json, write_json
from tfmtr.evaluation.evidence import compare_lists, interval_text
from tfmtr.evaluation.list_scores import MODEL, read_list_scores, segments_of, values_of
from tfmtr.listwise.fit import MIDDLE, SETTINGS
from tfmtr.listwise.model import ListModel
from tfmtr.listwise.parts import SCORES
from tfmtr.recipe import Recipe
from tfmtr.run import LIST_MODEL

SEEDS = 3
ORDER = (2, 3, 1)  # of folds: test users of the first were read for an earlier design, so they come last
TOWERS, DEFAULT = "towers", "default"
GOALS = {"mean": 1.10, "low": 1.03, "set": 1.0, "set_low": 0.95}
FROZEN = "tfmtr/listwise/*.py"
Z = 1.959964, 0.841621  # of a two-sided test at 5 % and of a power of 80 %


def changed(model, **by):
    """A list model whose factors are multiplied by something."""
    values = {name: getattr(model.factors, name) * times for name, times in by.items()}
    return dataclasses.replace(model, factors=dataclasses.replace(model.factors, **values))


def without_past(model):
    """A list model in which what goes with a user's past counts nothing."""
    return changed(model, weights=0, activity=0)


def without_texts(model):
    """A list model in which titles' vectors count nothing."""
    is_text = np.isin(SCORES, ("alike", "next texts"))
    return changed(model, weights=~is_text)


def without_activity(model):
    """A list model in which it does not count how much a user had."""
    return changed(model, activity=0)


def without_territories(model):
    """A list model whose shares and trends are those of all territories."""
    shares, trends = np.zeros_like(model.factors.shares), np.zeros_like(model.factors.trends)
    shares[0], trends[0] = model.factors.shares.sum(axis=0), model.factors.trends[0]
    return dataclasses.replace(model, factors=dataclasses.replace(model.factors, shares=shares, trends=trends))


def without_prior(model):
    """A list model in which what is popular counts nothing."""
    return changed(model, power=0, trends=0, activity=0)


def without_towers(model):
    """A list model beside which the towers count nothing."""
    return dataclasses.replace(model, model_weight=0.0)


ABLATIONS = {
    "without the past": without_past,
    "without texts": without_texts,
    "without activity": without_activity,
    "without territories": without_territories,
    "without popularity": without_prior,
    "without the towers": without_towers,
}


def fingerprint():
    """The hash of the procedure: of the files that say how a list is ordered, the default recipe and the commands."""
    found = hashlib.sha256(json.dumps([Recipe().document(), SETS, FOLDS, ENOUGH, GOALS], sort_keys=True).encode())
    for file in sorted(ROOT.glob(FROZEN)):
        found.update(f"{file.relative_to(ROOT)}\n".encode() + file.read_bytes())
    return found.hexdigest()


def check_frozen(file=HERE / "frozen.json"):
    """Raises a `SystemExit` unless the procedure is the one that was frozen."""
    frozen = read_json(file)
    if frozen is None or frozen["sha256"] != fingerprint():
        raise SystemExit(
            f"The procedure is not the frozen one of {file.name}, so no test window is read. Look at validation users "
            "until it is done, then write it anew with --freeze, which throws all lines away."
        )


def fold(work, name, number, seed, source, more):
    """Prepares, trains and evaluates one fold with one seed; returns the run's folder and the default's line."""
    base = work / f"{name}-{number}"
    data, run = base / "data", base / f"seed-{seed}" / "run"
    words = [word.format(source=source) for word in SETS[name]]
    prepare = {
        "prepare": ["prepare", *words, "--fold", f"{number}/{FOLDS}", "--out", str(data), *more.get("prepare", [])]
    }
    train = {
        "train": ["train", "--data", str(data), "--out", str(run), "--seed", str(seed), *more.get("train", [])],
        "evaluate": ["evaluate", str(run), *(more.get("evaluate", []) if seed == 0 else ["--baselines", "none"])],
    }
    took = cells.steps(base, prepare) | cells.steps(base / f"seed-{seed}", train)
    result, document = read_json(run / "evaluation.json"), read_json(run / "run.json")
    listwise = document["listwise"]
    line = line_of(name, number, seed, DEFAULT, run) | {
        "commands": {key: in_general(words, source, work) for key, words in (prepare | train).items()},
        "took": took,
        "list_model_seconds": listwise.get("seconds"),
        "setting": listwise.get("setting"),
        "judges": listwise.get("judges"),
        "learnt_from": listwise.get("learnt_from"),
        "date": result["date"],
        "versions": result["versions"],
    }
    if seed == 0:
        baselines = result["baselines"]
        line |= {
            "best": baselines["best"],
            "tuned": {key: row["options"] or row["reason"] for key, row in baselines["tuned"].items()},
        }
    return run, line


def line_of(name, number, seed, arm, run):
    """What the lists of one arm are worth, their popularity and the primary task's PR-AUC."""
    result, scores = read_json(run / "evaluation.json"), read_list_scores(run)
    rows = scores[(scores.contender == MODEL) & (scores.list == "new")]
    lists, task = result["lists"], next(iter(result["tasks"].values()))
    return {
        "set": name,
        "fold": number,
        "seed": seed,
        "arm": arm,
        "lists": len(rows),
        **{metric: round(float(rows[metric].mean()), 5) for metric in METRICS},
        "popularity_lift": mean_of(lists["popularity_lift"], "popularity_lift"),
        "local_share": mean_of(lists["local_share"], "recommended"),
        "local_truth": mean_of(lists["local_share"], "truth"),
        "pr_auc": mean_of(next(iter(task.values())), "pr_auc"),
        "frozen": fingerprint(),
    }


def mean_of(windows, key):
    """The mean of a figure over territories and test windows, `None` where there is none."""
    cells_of = [cell for row in windows.values() for name, cell in row.items() if name != "overall"]
    found = [cell[key] for cell in cells_of if cell.get(key) is not None]
    return round(float(np.mean(found)), 4) if found else None


def arm_of(run, arm, change):
    """A copy of a run with another list model, or with none, evaluated; returns its folder."""
    folder = run.parent / arm.replace(" ", "-")
    if not (folder / "evaluation.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(run, folder, ignore=shutil.ignore_patterns("evaluation.json", "*scores.parquet", "report"))
        (folder / LIST_MODEL).unlink()
        if change is not None:
            change(ListModel.load(run / LIST_MODEL)).save(folder / LIST_MODEL)
        cells.run(["evaluate", str(folder), "--baselines", "none"], run.parent / "log.txt")
    return folder


def main(
    source,
    work,
    *,
    sets=tuple(SETS),
    folds=FOLDS,
    seeds=SEEDS,
    enough=ENOUGH,
    ablations=True,
    out=HERE,
    more=None,
    say=print,
):
    """Computes the cells that are missing, each set's rows over all of them, and the page."""
    check_frozen()
    file, work = Path(out) / "results.jsonl", Path(work).resolve()
    lines = [json.loads(text) for text in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []

    def add(line):
        key = ("set", "fold", "seed", "arm")
        lines[:] = [*(one for one in lines if [one.get(k) for k in key] != [line.get(k) for k in key]), line]
        file.write_text("".join(json.dumps(one) + "\n" for one in lines), encoding="utf-8")
        say({k: line.get(k) for k in (*key, "lists", *METRICS, "setting")})

    for name in sets:
        found, number_of_lists = [], 0
        for number in ORDER[:folds]:
            for seed in range(seeds if number == ORDER[0] else 1):
                run, line = fold(work, name, number, seed, source, more or {})
                add(line)
                found.append(scores_of(run, DEFAULT, number, seed))
                if seed == 0:
                    number_of_lists += line["lists"]
                    arms = {TOWERS: None, **(ABLATIONS if ablations and number == ORDER[0] else {})}
                    for arm, change in arms.items():
                        folder = arm_of(run, arm, change)
                        add(line_of(name, number, seed, arm, folder))
                        found.append(scores_of(folder, arm, number, seed))
            if number_of_lists >= enough:
                break
        add(pooled(name, lines, pd.concat(found, ignore_index=True)))
        (Path(out) / "README.md").write_text(page(lines), encoding="utf-8")
    return lines


def scores_of(run, arm, number, seed):
    """Every user's lists of a run, under the name of its arm; baselines under their own."""
    scores = read_list_scores(run)
    return scores.assign(contender=scores.contender.where(scores.contender != MODEL, arm), fold=number, seed=seed)


def pooled(name, lines, scores):
    """A data set's row: the default beside each baseline and arm, over users, folds and seeds."""
    compared = {}
    ours = scores[scores.contender == DEFAULT]
    for metric in METRICS:
        compared[metric] = {}
        for key in sorted(set(scores.contender) - {DEFAULT}):
            theirs = scores[(scores.contender == key) & (scores.list == "new")]
            places = theirs[["user", "window", "fold"]].drop_duplicates()
            own = ours.merge(places, on=["user", "window", "fold"])
            place = ["contender", "list", "user", "window", "fold"]
            own = own.groupby(place, as_index=False).mean(numeric_only=True)  # over seeds
            own, theirs = values_of(own, DEFAULT, metric), values_of(theirs, key, metric)
            compared[metric][key] = compare_lists(own, theirs)
    first = scores[scores.seed == 0]
    segments = segments_of(first[first.contender.isin({*compared["ndcg"], DEFAULT} - set(ABLATIONS))])
    seeds = ours[(ours.fold == ORDER[0]) & (ours.list == "new")].groupby("seed").ndcg.mean()
    own = [line for line in lines if line["set"] == name and line.get("arm") == DEFAULT]
    best = [line["best"] for line in own if "best" in line]
    return {
        "set": name,
        "arm": "pooled",
        "lists": int(((first.contender == DEFAULT) & (first.list == "new")).sum()),
        "best": max(set(best), key=best.count),
        "seeds": [round(float(value), 5) for value in seeds],
        "ndcg": round(float(ours[ours.list == "new"].groupby("seed").ndcg.mean().iloc[0]), 5),
        "compared": compared,
        "segments": segments,
        "frozen": fingerprint(),
    }


def highest(line, metric):
    """The baseline that is best on the test, by the mean of its lists."""
    arms = {TOWERS, *ABLATIONS}
    return max(set(line["compared"][metric]) - arms, key=lambda key: line["compared"][metric][key]["theirs"])


def verdict(cell):
    """Whether a data set's goal is shown."""
    if cell["ratio"] is None or cell["low"] is None:
        return "not shown"
    return "shown" if cell["ratio"] >= GOALS["set"] and cell["low"] >= GOALS["set_low"] else "not shown"


def geometric_mean(found):
    """Geometric mean of ratios over data sets and its 95 % interval, from the standard errors of their logarithms."""
    logs = [np.log(cell["ratio"]) for cell in found]
    errors = [np.log(cell["detectable"]) / sum(Z) for cell in found]
    mean, error = np.mean(logs), np.sqrt(np.sum(np.square(errors))) / len(found)
    return tuple(float(np.exp(mean + z * error)) for z in (0.0, -Z[0], Z[0]))


def page(lines):
    """The page of the lines."""
    found = [line for line in lines if line.get("arm") == "pooled"]
    text = [
        "# Do the default's lists beat what people already have?",
        "`python studies/quality/study.py --source DATA --work WORK` makes the lines, `--page` this page of them. "
        "Lists of ten titles that the user did not have before the window; every baseline is tuned on validation users "
        "and fitted anew before each window. Ratios are the default's mean over the baseline's, with 95 % intervals "
        "over users; the default's figure of a user is a mean over seeds. **The best baseline is the one that is best "
        "on the test**, which nobody knows beforehand; beside it stands the one that validation users decide for. A"
        " data set's goal is a ratio of at least 1.0 with a lower end of at least 0.95.",
    ]
    for metric, title in (("ndcg", "NDCG@10"), ("capped_recall", "Recall@10, over min(n, 10)")):
        rows, best = [], []
        for line in found:
            key, compared = highest(line, metric), line["compared"][metric]
            cell, by_validation, towers = compared[key], compared[line["best"]], compared[TOWERS]
            best.append(cell)
            rows.append(
                [line["set"], f"{line['lists']:,}", f"{towers['theirs']:.4f}", f"{cell['ours']:.4f}",
                 f"{key} {cell['theirs']:.4f}", cells.text(cell["ratio"], ".3f"), interval_text(cell), verdict(cell),
                 f"{line['best']} {cells.text(by_validation['ratio'], '.3f')}", cells.text(towers["ratio"], ".3f")]
            )  # fmt: skip
        text += [
            f"## {title}",
            cells.table(
                ["data", "lists", "towers alone", "default", "best baseline", "ratio", "95 %", "goal",
                 "ratio to the best by validation", "ratio to the towers alone"],
                rows,
            ),
        ]  # fmt: skip
        if best and all(cell["ratio"] and cell["detectable"] for cell in best):
            mean, low, high = geometric_mean(best)
            reached = "reached" if mean >= GOALS["mean"] and low > GOALS["low"] else "not reached"
            text.append(
                f"Geometric mean of the ratios over {len(best)} data sets: **{mean:.3f}** ({low:.3f} to {high:.3f}). "
                f"The goal, at least {GOALS['mean']:.2f} with a lower end above {GOALS['low']:.2f}, is {reached}."
            )
    rows = []
    for line in found:
        for arm in (TOWERS, *ABLATIONS):
            if cell := line["compared"]["ndcg"].get(arm):
                rows.append(
                    [line["set"], arm, f"{cell['theirs']:.4f}", cells.text(cell["ratio"], ".3f"), interval_text(cell)]
                )
    text += [
        "## Parts taken out",
        "From the same list model, the others left as they are; fold 2, seed 0 (towers: all folds). The ratio is the "
        "default's NDCG over the arm's: above 1 the part helps.",
        cells.table(["data", "arm", "NDCG@10", "default / arm", "95 %"], rows),
        "## What validation users chose, and what it took",
    ]
    rows = []
    for line in lines:
        if line.get("arm") == DEFAULT:
            tries = {row["setting"]: row["ndcg"] for row in (line["judges"] or {}).get("tries", [])}
            said = ", ".join(f"{key} {value:.4f}" for key, value in tries.items()) or "nothing: under 200 lists"
            took = line["took"]
            rows.append(
                [line["set"], str(line["fold"]), str(line["seed"]), f"{line['ndcg']:.4f}", line["setting"], said,
                 str(line["learnt_from"]), f"{took['train']['seconds']:.0f}", f"{line['list_model_seconds']:.0f}",
                 f"{took['train']['megabytes']:,}"]
            )  # fmt: skip
    text.append(
        cells.table(
            ["data", "fold", "seed", "NDCG@10", "setting", "validation lists", "rows learnt from", "train, s",
             "of these the list model", "peak, MB"], rows,
        )
    )  # fmt: skip
    rows = []
    for line in lines:
        if line.get("arm") in (DEFAULT, TOWERS) and line["fold"] == ORDER[0] and line["seed"] == 0:
            rows.append(
                [
                    line["set"],
                    line["arm"],
                    *(cells.text(line[k], ".4f") for k in ("pr_auc", "popularity_lift", "local_share", "local_truth")),
                ]
            )
    text += [
        "## Popularity bias",
        "Fold 2, seed 0, means over territories and windows. Lift: how much more popular the titles of lists are than "
        "those that users had before; share: of places in lists that local titles have. PR-AUC is that of the first "
        "task; it is the towers' own.",
        cells.table(["data", "arm", "PR-AUC", "popularity lift", "share of local titles", "of what users took"], rows),
        "## New users and new titles",
    ]
    rows = []
    for line in found:
        for key in (DEFAULT, TOWERS, highest(line, "ndcg")):
            part = line["segments"].get(key)
            if part:
                rows.append([line["set"], key, *(
                    f"{cells.text(part[kind][metric], '.4f')} ({part[kind][number]:,})"
                    for kind, metric, number in (
                        ("new users", "ndcg", "user_windows"),
                        ("known users", "ndcg", "user_windows"),
                        ("new titles", "recall", "positives"),
                        ("known titles", "recall", "positives"),
                    )
                )])  # fmt: skip
    text.append(
        cells.table(
            ["data", "lists of", "new users, NDCG", "known users, NDCG", "new titles, recall", "known titles, recall"],
            rows,
        )
    )
    text += ["## Leave one data set out", leave_one_out(lines)]
    dated = [line for line in lines if "versions" in line]
    if dated:
        last = dated[-1]
        text.append(f"{last['date']}; " + ", ".join(f"{key} {value}" for key, value in last["versions"].items()))
    return "\n\n".join(text) + "\n" + cells.notes_of(HERE)


def leave_one_out(lines):
    """What each data set would choose among the settings that the others chose, as text."""
    own = [line for line in lines if line.get("arm") == DEFAULT and line["seed"] == 0]
    rows = []
    for name in dict.fromkeys(line["set"] for line in own):
        others = {line["setting"] for line in own if line["set"] != name} | {MIDDLE}
        for line in own:
            if line["set"] == name:
                tries = {row["setting"]: row["ndcg"] for row in line["judges"]["tries"] if row["setting"] in others}
                setting = max(tries, key=tries.get) if tries else MIDDLE
                same = "the same" if setting == line["setting"] else f"{setting} instead of {line['setting']}"
                rows.append([name, str(line["fold"]), ", ".join(key for key in SETTINGS if key in others), same])
    return (
        "The settings that are left are the middle one and those that a fold of another data set chose. What another "
        "choice is worth on the test was not computed.\n\n"
        + cells.table(["data", "fold", "settings left", "choice"], rows)
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", help="Folder of the public data sets.")
    parser.add_argument("--work", help="Directory to work in; what is there goes on.")
    parser.add_argument("--sets", default=",".join(SETS), help="Names of data sets.")
    parser.add_argument("--folds", type=int, default=FOLDS, help="Most folds of a data set.")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="Seeds of the first fold.")
    parser.add_argument("--ablations", action=argparse.BooleanOptionalAction, default=True, help="Take parts out.")
    parser.add_argument("--freeze", action="store_true", help="Write frozen.json, and throw all lines away.")
    parser.add_argument("--page", action="store_true", help="Write the page from the lines.")
    arguments = parser.parse_args()
    if arguments.freeze:
        write_json(HERE / "frozen.json", {"sha256": fingerprint(), "files": FROZEN, "settings": list(SETTINGS)})
        (HERE / "results.jsonl").unlink(missing_ok=True)
    elif arguments.page:
        read = [json.loads(text) for text in (HERE / "results.jsonl").read_text(encoding="utf-8").splitlines()]
        (HERE / "README.md").write_text(page(read), encoding="utf-8")
    elif not (arguments.source and arguments.work):
        parser.error("--source and --work must be given")
    else:
        main(
            arguments.source,
            arguments.work,
            sets=arguments.sets.split(","),
            folds=arguments.folds,
            seeds=arguments.seeds,
            ablations=arguments.ablations,
        )
