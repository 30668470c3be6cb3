"""Where today's default stands beside what people already have, on five logs: lists of ten, as they are served.

    python studies/starting_line/study.py --source ../shared/data     # hours on two cores
    python studies/starting_line/study.py --source ../shared/data --sets xmarket --folds 1

Each data set is prepared, trained on and evaluated by the three commands with no option but paths, columns and tasks,
and `--fold i/n`: test users in turn, a model trained anew for each fold, until there are 3,000 lists or the folds are
through. A line a fold, and one of each set's lists of all folds together, in `results.jsonl`; sets that are not
asked for stay as they are. The page has each baseline beside the model, with an interval over users, what ratio could
have been detected, p-values corrected by Holm over all data sets and baselines, and new and known users and titles.

Expected: a row for each data set in the table of the page, whatever it says.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

import pandas as pd

from studies import cells
from tfmtr.documents import read_json
from tfmtr.evaluation.compare import holm
from tfmtr.evaluation.evidence import compare_lists, interval_text
from tfmtr.evaluation.list_scores import MODEL, read_list_scores, segments_of, values_of

ENOUGH = 3_000
# What is typed after `tfmtr prepare`; paths are below --source.
SETS = {
    "xmarket": ["xmarket", "--source", "{source}/xmarket-electronics"],
    "online-retail": ["online-retail", "--source", "{source}/online-retail/online_retail.parquet"],
    "movielens": ["movielens", "--source", "{source}/movielens-1m/ml-1m-rebuilt.zip"],
    "kuairand": ["kuairand", "--source", "{source}/kuairand-pure", "--contradictions", "keep"],
    "simulator": ["simulator"],
}
FOLDS = 3
METRICS = ("ndcg", "capped_recall")


def fold_of(name, number, source, work, *, more=None):
    """Prepares, trains and evaluates one fold of a data set; returns its line, and every user's scores.

    Steps that were done under `work` before are not done again.
    """
    folder = work / f"{name}-{number}"
    data, model = folder / "data", folder / "run"
    prepare = [word.format(source=source) for word in SETS[name]]
    more = more or {}
    commands = {
        "prepare": ["prepare", *prepare, "--fold", f"{number}/{FOLDS}", "--out", str(data), *more.get("prepare", [])],
        "train": ["train", "--data", str(data), "--out", str(model), *more.get("train", [])],
        "evaluate": ["evaluate", str(model), "--data", str(data), *more.get("evaluate", [])],
    }
    took = cells.steps(folder, commands)
    result, report = read_json(model / "evaluation.json"), read_json(data / "prepare.json")
    scores = read_list_scores(model).assign(fold=number)
    own = scores[(scores.contender == MODEL) & (scores.list == "new")]
    return {
        "set": name,
        "fold": f"{number}/{FOLDS}",
        "commands": {step: in_general(command, source, work) for step, command in commands.items()},
        "seconds": {step: row["seconds"] for step, row in took.items()},
        "windows": report["windows"][0]["start"] + " to " + report["windows"][-1]["end"],
        "num_windows": len(report["windows"]),
        "lists": len(own),
        "left_out": sum(row["users"] for row in result["left_out"].values()),
        "best": result["baselines"]["best"],
        "tuned": {key: row["options"] or row["reason"] for key, row in result["baselines"]["tuned"].items()},
        "compared": {key: round(cell["ratio"] or 0.0, 4) for key, cell in result["baselines"]["compared"].items()},
        "warnings": result["warnings"],
        "date": result["date"],
        "versions": result["versions"],
    }, scores


def in_general(command, source, work):
    """A command as text, with words in the place of this machine's paths."""
    return f"tfmtr {' '.join(command)}".replace(str(source), "DATA").replace(str(work), "WORK")


def pooled(name, lines, scores):
    """The line of a data set over its folds: the model beside each baseline, in lists of all test users."""
    rows = scores[scores.list == "new"]
    names = sorted(set(rows.contender) - {MODEL})
    repeats = scores[scores.list == "repeats"].groupby("contender").ndcg.mean()
    return {
        "set": name,
        "pooled": len(lines),
        "lists": int((rows.contender == MODEL).sum()),
        "users": int(rows.user.nunique()),
        "best": [line["best"] for line in lines],
        "means": {
            key: {**{m: round(float(of[m].mean()), 5) for m in METRICS}, "repeats": round(float(repeats[key]), 5)}
            for key, of in rows.groupby("contender")
        },
        "compared": {
            metric: {
                key: compare_lists(values_of(scores, MODEL, metric), values_of(scores, key, metric)) for key in names
            }
            for metric in METRICS
        },
        "segments": segments_of(scores),
    }


def page(lines):
    """The page of the lines."""
    found = [line for line in lines if "pooled" in line]
    claims = [(line, key) for line in found for key in line["compared"]["ndcg"]]
    judged = [(line, key) for line, key in claims if line["compared"]["ndcg"][key]["p_value"] is not None]
    corrected = holm([line["compared"]["ndcg"][key]["p_value"] for line, key in judged])
    corrected = {(line["set"], key): p for (line, key), p in zip(judged, corrected, strict=True)}
    text = [
        "# The starting line",
        "`python studies/starting_line/study.py --source DATA` says how. Lists of ten titles that the "
        "user did not have before the window; `tfmtr prepare`, `train` and `evaluate` with no option but paths, columns"
        " and tasks, one seed, test users in three folds. Ratios are the model's NDCG over the baseline's, with 95 % "
        "intervals over users; p-values are corrected by Holm over all rows. The best baseline is the one that "
        "validation users decided for (in most folds); the highest on the test is in bold.",
    ]
    for line in found:
        best, means = max(set(line["best"]), key=line["best"].count), line["means"]
        highest, rows = max(set(means) - {MODEL}, key=lambda key: means[key]["ndcg"]), []
        for key in sorted(means, key=lambda key: -means[key]["ndcg"]):
            cell = line["compared"]["ndcg"].get(key, {})
            name = f"{key} (best by validation)" if key == best else key
            ratio = interval = detectable = p_value = ""
            if cell.get("ratio") is not None:
                ratio, interval = f"{cell['ratio']:.3f}", interval_text(cell)
                detectable, p_value = cells.text(cell["detectable"], ".3f"), cells.p_text(corrected[line["set"], key])
            segments = [
                cells.text(line["segments"][key][kind][metric], ".4f")
                for kind, metric in (
                    ("new users", "ndcg"), ("known users", "ndcg"), ("new titles", "recall"), ("known titles", "recall")
                )
            ]  # fmt: skip
            figures = [f"{means[key][metric]:.4f}" for metric in ("ndcg", "capped_recall", "repeats")]
            rows.append(
                [f"**{name}**" if key == highest else name, *figures, ratio, interval, detectable, p_value, *segments]
            )
        parts = [one for one in lines if one["set"] == line["set"] and "fold" in one]
        of_model = line["segments"][MODEL]
        text += [
            f"## {line['set']}",
            f"{line['lists']:,} lists of {line['users']:,} users in {line['pooled']} of {FOLDS} folds; windows from "
            f"{parts[0]['windows']}; {sum(one['left_out'] for one in parts):,} users had all their positives before. "
            f"{of_model['new users']['user_windows']:,} lists are of new users; "
            f"{of_model['new titles']['positives']:,} positives are of new titles. "
            f"Seconds a fold: {', '.join(f'{step} {seconds:.0f}' for step, seconds in parts[0]['seconds'].items())}.",
            cells.table(
                ["lists of", "NDCG@10", "recall over min(n, 10)", "NDCG, repeats allowed", "model / this", "95 %",
                 "detectable", "p (Holm)", "new users", "known users", "new titles", "known titles"],
                rows,
            ),
            *[f"* Fold {one['fold']}: {warning}" for one in parts for warning in one["warnings"]],
        ]  # fmt: skip
    last = [line for line in lines if "versions" in line][-1]
    text.append(f"{last['date']}; " + ", ".join(f"{name} {version}" for name, version in last["versions"].items()))
    return "\n\n".join(text) + "\n" + cells.notes_of(HERE)


def main(source, out=HERE, *, sets=tuple(SETS), folds=FOLDS, work=None, enough=ENOUGH, more=None, say=print):
    """Computes the folds that are missing, and writes lines and page."""
    out, file, lines = Path(out), Path(out) / cells.RESULTS, []
    if file.exists():
        lines = [json.loads(text) for text in file.read_text(encoding="utf-8").splitlines()]
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(work or temporary)
        for name in sets:
            lines = [line for line in lines if line["set"] != name]
            own, scores = [], []
            for number in range(1, folds + 1):
                line, found = fold_of(name, number, source, work, more=more)
                own.append(line)
                scores.append(found)
                say(f"{name} {line['fold']}: {line['lists']} lists, {line['seconds']} s, ratios {line['compared']}")
                if sum(one["lists"] for one in own) >= enough:
                    break
            lines += [*own, pooled(name, own, pd.concat(scores, ignore_index=True))]
            out.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
            (out / "README.md").write_text(page(lines), encoding="utf-8")
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="Folder of the public data sets.")
    parser.add_argument("--work", help="Directory to work in; a temporary one by default.")
    parser.add_argument("--sets", default=",".join(SETS), help="Names of data sets.")
    parser.add_argument("--folds", type=int, default=FOLDS, help="Most folds of a data set.")
    arguments = parser.parse_args()
    chosen = arguments.sets.split(",")
    main(arguments.source, sets=chosen, folds=arguments.folds, work=arguments.work)
