"""Whether the default's lists beat what people already have, and which of its parts do it.

    python studies/quality/study.py --source ../shared/data --work WORK        # hours on two cores
    python studies/quality/study.py --source ../shared/data --work WORK --sets xmarket --folds 1 --seeds 1
    python studies/quality/study.py --page                                      # the page from the lines

Each data set is prepared, trained on and evaluated by the three commands with no option but paths, columns, tasks,
`--fold i/n` and `--seed`: test users in turn until there are 3,000 lists, seeds 1 and 2 of the first of them, which is
fold 3. Beside the default stand all baselines; the towers alone (the default of before, the same towers); and the
default with one part of its list model taken out and the others left as they are. *Leave one out*: the settings among
which a data set chooses are those that another one chose. Online Retail is there twice, the second time with 96 % of
its titles' texts taken away.

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
sys.path.insert(0, str(ROOT))

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from studies import cells
from studies.starting_line.study import ENOUGH, FOLDS, METRICS, SETS, in_general
from tfmtr.documents import read_json, write_json
from tfmtr.evaluation.evidence import compare_lists, interval_text
from tfmtr.evaluation.list_scores import MODEL, read_list_scores, segments_of, values_of
from tfmtr.listwise.fit import MIDDLE, SETTINGS, fit_list_model
from tfmtr.listwise.model import ListModel
from tfmtr.listwise.parts import SCORES
from tfmtr.recipe import Recipe
from tfmtr.run import LIST_MODEL, Run

SEEDS = 3
ORDER = (3, 2, 1)  # of folds: test users of the others were read for earlier designs, so they come last
TOWERS, DEFAULT, LEFT_OUT = "towers", "default", "leave one out"
FEW_TEXTS, TEXTS_LEFT = "online-retail-few-texts", 0.04  # share of the titles that keep theirs
COMMANDS = SETS | {FEW_TEXTS: ["online-retail", "--source", "{work}/few-texts.parquet"]}
METRICS_OF = {"ndcg": "NDCG@10", "capped_recall": "Recall@10, over min(n, 10)"}
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
    words = [word.format(source=source, work=work) for word in COMMANDS[name]]
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


def few_texts(source, work):
    """Writes Online Retail's sales with the texts of most titles taken away, drawn by their codes."""
    file = Path(work) / "few-texts.parquet"
    if not file.exists():
        table = pq.read_table(Path(source) / "online-retail/online_retail.parquet")
        code = table["StockCode"].combine_chunks().cast("string").dictionary_encode()
        order = np.argsort([hashlib.sha256(text.encode()).digest() for text in code.dictionary.to_pylist()])
        is_kept = np.zeros(len(order), bool)
        is_kept[order[: round(TEXTS_LEFT * len(order))]] = True
        texts = pc.if_else(pa.array(is_kept[code.indices.to_numpy()]), table["Description"].combine_chunks(), None)
        file.parent.mkdir(parents=True, exist_ok=True)
        place = table.schema.get_field_index("Description")
        pq.write_table(table.set_column(place, "Description", texts), file)


def with_setting(run, setting, seed):
    """A run's list model, were there only one setting."""
    opened = Run(run)
    model, data = opened.load(), opened.data
    return fit_list_model(model, data, opened.schema, seed=seed, settings={setting: SETTINGS[setting]})[0]


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
    sets=tuple(COMMANDS),
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
    file, work = Path(out) / cells.RESULTS, Path(work).resolve()
    lines = [json.loads(text) for text in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []

    def add(line):
        key = ("set", "fold", "seed", "arm")
        lines[:] = [*(one for one in lines if [one.get(k) for k in key] != [line.get(k) for k in key]), line]
        file.write_text("".join(json.dumps(one) + "\n" for one in lines), encoding="utf-8")
        say({k: line.get(k) for k in (*key, "lists", *METRICS, "setting")})

    if FEW_TEXTS in sets:
        few_texts(source, work)
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
    for name, left in left_out(lines).items():
        run = work / f"{name}-{ORDER[0]}" / "seed-0" / "run"
        if left["choice"] != left["own"] and name in sets:
            folder = arm_of(run, LEFT_OUT, lambda _, run=run, left=left: with_setting(run, left["choice"], 0))
            scores = [scores_of(run, DEFAULT, ORDER[0], 0), scores_of(folder, LEFT_OUT, ORDER[0], 0)]
            compared = pooled(name, lines, pd.concat(scores, ignore_index=True), ours=LEFT_OUT)["compared"]
            add(line_of(name, ORDER[0], 0, LEFT_OUT, folder) | left | {"compared": compared})
    (Path(out) / "README.md").write_text(page(lines), encoding="utf-8")
    return lines


def scores_of(run, arm, number, seed):
    """Every user's lists of a run, under the name of its arm; baselines under their own."""
    scores = read_list_scores(run)
    return scores.assign(contender=scores.contender.where(scores.contender != MODEL, arm), fold=number, seed=seed)


def pooled(name, lines, scores, *, ours=DEFAULT):
    """A data set's row: the default, or another arm, beside each baseline and arm, over users, folds and seeds."""
    compared, arm = {}, ours
    ours = scores[scores.contender == arm]
    for metric in METRICS:
        compared[metric] = {}
        for key in sorted(set(scores.contender) - {arm}):
            theirs = scores[(scores.contender == key) & (scores.list == "new")]
            places = theirs[["user", "window", "fold"]].drop_duplicates()
            own = ours.merge(places, on=["user", "window", "fold"])
            place = ["contender", "list", "user", "window", "fold"]
            own = own.groupby(place, as_index=False).mean(numeric_only=True)  # over seeds
            own, theirs = values_of(own, arm, metric), values_of(theirs, key, metric)
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
    arms = {TOWERS, DEFAULT, *ABLATIONS}
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


def beside_the_best(lines, metric):
    """Table of pooled lines beside the baseline that is best on the test, and others."""
    rows = []
    for line in lines:
        key, compared = highest(line, metric), line["compared"][metric]
        cell, by_validation, towers = compared[key], compared[line["best"]], compared[TOWERS]
        rows.append(
            [line["set"], f"{line['lists']:,}", f"{towers['theirs']:.4f}", f"{cell['ours']:.4f}",
             f"{key} {cell['theirs']:.4f}", cells.text(cell["ratio"], ".3f"), interval_text(cell), verdict(cell),
             f"{line['best']} {cells.text(by_validation['ratio'], '.3f')}", cells.text(towers["ratio"], ".3f")]
        )  # fmt: skip
    return cells.table(
        ["data", "lists", "towers alone", "default", "best baseline", "ratio", "95 %", "goal",
         "ratio to the best by validation", "ratio to the towers alone"],
        rows,
    )  # fmt: skip


def mean_text(best):
    """Whether the goal of all data sets is reached, as a list of one text; of none without a ratio and an interval."""
    if not best or not all(cell["ratio"] and cell["detectable"] for cell in best):
        return []
    mean, low, high = geometric_mean(best)
    reached = "reached" if mean >= GOALS["mean"] and low > GOALS["low"] else "not reached"
    return [
        f"Geometric mean of the ratios over {len(best)} data sets: **{mean:.3f}** ({low:.3f} to {high:.3f}). "
        f"The goal, at least {GOALS['mean']:.2f} with a lower end above {GOALS['low']:.2f}, is {reached}."
    ]


def page(lines):
    """The page of the lines."""
    everyone = [line for line in lines if line.get("arm") == "pooled"]
    found = [line for line in everyone if line["set"] in SETS]
    text = [
        "# Do the default's lists beat what people already have?",
        "`python studies/quality/study.py --source DATA --work WORK` makes the lines, `--page` this page of them. "
        "Lists of ten titles that the user did not have before the window; every baseline is tuned on validation users "
        "and fitted anew before each window. Ratios are the default's mean over the baseline's, with 95 % intervals "
        "over users; the default's figure of a user is a mean over seeds. **The best baseline is the one that is best "
        "on the test**, which nobody knows beforehand; beside it stands the one that validation users decide for. A"
        " data set's goal is a ratio of at least 1.0 with a lower end of at least 0.95.",
    ]
    for metric, title in METRICS_OF.items():
        best = [line["compared"][metric][highest(line, metric)] for line in found]
        text += [f"## {title}", beside_the_best(found, metric), *mean_text(best)]
    rows = []
    for line in found:
        for arm in (TOWERS, *ABLATIONS):
            if cell := line["compared"]["ndcg"].get(arm):
                rows.append(
                    [line["set"], arm, f"{cell['theirs']:.4f}", cells.text(cell["ratio"], ".3f"), interval_text(cell)]
                )
    text += [
        "## Parts taken out",
        f"From the same list model, the others left as they are; fold {ORDER[0]}, seed 0 (towers: all folds). The "
        "ratio is the default's NDCG over the arm's: above 1 the part helps.",
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
        f"Fold {ORDER[0]}, seed 0, means over territories and windows. Lift: how much more popular the titles of lists "
        "are than those that users had before; share: of places in lists that local titles have. PR-AUC is that of the "
        "first task; it is the towers' own.",
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
    if few := [line for line in everyone if line["set"] == FEW_TEXTS]:
        share = f"{1 - TEXTS_LEFT:.0%}".replace("%", " %")
        text += [
            "## Titles without text",
            f"{share} of Online Retail's titles without theirs; XMarket has none at all.",
        ]
        text += [part for metric, title in METRICS_OF.items() for part in (title + ":", beside_the_best(few, metric))]
    text += ["## Leave one data set out", *leave_one_out(lines)]
    dated = [line for line in lines if "versions" in line]
    if dated:
        last = dated[-1]
        text.append(f"{last['date']}; " + ", ".join(f"{key} {value}" for key, value in last["versions"].items()))
    return "\n\n".join(text) + "\n" + cells.notes_of(HERE)


def left_out(lines):
    """What each data set would choose, were there the middle setting and those that others chose alone."""
    own = {line["set"]: line for line in lines if line.get("arm") == DEFAULT and is_first(line) and line["set"] in SETS}
    found = {}
    for name, line in own.items():
        others = {other["setting"] for key, other in own.items() if key != name} | {MIDDLE}
        tries = {row["setting"]: row["ndcg"] for row in line["judges"]["tries"] if row["setting"] in others}
        choice = max(tries, key=tries.get) if tries else MIDDLE
        left = [key for key in SETTINGS if key in others]
        found[name] = {"settings_left": left, "own": line["setting"], "choice": choice}
    return found


def is_first(line):
    """Whether a line is of the first fold and seed."""
    return line["fold"] == ORDER[0] and line["seed"] == 0


def leave_one_out(lines):
    """What is left of a data set's ratio with the settings that the others chose, as texts."""
    rows, best = [], {metric: [] for metric in METRICS}
    arms = {line["set"]: line["compared"] for line in lines if line.get("arm") == LEFT_OUT}
    everyone = {line["set"]: line for line in lines if line.get("arm") == "pooled"}
    for name, left in left_out(lines).items():
        compared = arms.get(name) or everyone[name]["compared"]
        for metric in METRICS:
            best[metric].append(compared[metric][highest(everyone[name], metric)])
        same = "the same" if left["choice"] == left["own"] else f"{left['choice']} instead of {left['own']}"
        ratios = [f"{cells.text(best[m][-1]['ratio'], '.3f')} ({interval_text(best[m][-1])})" for m in METRICS]
        rows.append([name, ", ".join(left["settings_left"]), same, *ratios])
    intro = (
        "The settings that are left are the middle one and those that another data set chose. Where a data set chooses "
        f"another one so, its ratio is that of fold {ORDER[0]} and seed 0, otherwise that of the tables above."
    )
    table = cells.table(
        ["data", "settings left", "choice", *(f"ratio, {title}" for title in METRICS_OF.values())], rows
    )
    return [intro, table, *(f"{METRICS_OF[m]}: {text}" for m in METRICS for text in mean_text(best[m]))]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", help="Folder of the public data sets.")
    parser.add_argument("--work", help="Directory to work in; what is there goes on.")
    parser.add_argument("--sets", default=",".join(COMMANDS), help="Names of data sets.")
    parser.add_argument("--folds", type=int, default=FOLDS, help="Most folds of a data set.")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="Seeds of the first fold.")
    parser.add_argument("--ablations", action=argparse.BooleanOptionalAction, default=True, help="Take parts out.")
    parser.add_argument("--freeze", action="store_true", help="Write frozen.json, and throw all lines away.")
    parser.add_argument("--page", action="store_true", help="Write the page from the lines.")
    arguments = parser.parse_args()
    if arguments.freeze:
        write_json(HERE / "frozen.json", {"sha256": fingerprint(), "files": FROZEN, "settings": list(SETTINGS)})
        (HERE / cells.RESULTS).unlink(missing_ok=True)
    elif arguments.page:
        read = [json.loads(text) for text in (HERE / cells.RESULTS).read_text(encoding="utf-8").splitlines()]
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
