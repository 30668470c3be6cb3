"""Looks for a combination of the package's parts that is better than M3oE on MovieLens, on validation rows only.

    python studies/m3oe/search.py --data path/to/ml-1m.zip

Every candidate of `candidates.py` is trained once, with seed 0 and the recipe of `study.py`, by time, with L2
where its name says so, and gets the best epoch's mean AUC over domains and tasks on the validation rows of users seen
in training. Test rows are not read; `study.py --models ours` reads them once a seed, for the one that `CHOSEN`
names, and the page lists all that were tried. M3oE's own variants are among them, so that it has been looked for as
long as the others.

One candidate and budget is one line of `search.jsonl`, and one that is there is not trained again.
The first ones have `--max-updates 160 --patience 40`; they were compared before the published code's L2 was known.
"""

import argparse
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from rich.console import Console
from rich.table import Table

from studies.cells import Cell
from studies.m3oe import study
from studies.m3oe.candidates import CANDIDATES
from tfmtr import training


def main(path, *, dataset="movielens", candidates=None, folder=HERE, **changes):
    """Trains what is not there yet; returns `{candidate: document}` of all, best first."""
    read, learning_rate, _ = study.DATASETS[dataset]
    data = study.encode(*read(path, protocol="time"))
    found = {}
    for name, candidate in (candidates or CANDIDATES).items():
        recipe = study.Recipe(candidate.share, "MDMT", "time", 0, learning_rate, **candidate.parts, **changes)
        asked = {"candidate": name, "fingerprint": data.fingerprint, "recipe": recipe.document}
        stem = f"{name.replace(', ', '-').replace(' ', '-')}-{recipe.max_updates}-updates"
        cell = Cell(folder / study.SEARCH, f"{dataset}/{stem}")
        document = cell.known(asked)
        if not document:
            started = time.perf_counter()
            domains = range(1, data.schema.scenario.num_groups + 1)
            model, _, history = study.fit(data, recipe, domains, data.schema.tasks)
            document = {
                **asked,
                "val_auc": max(history["val_auc"]),
                "history": history,
                "parameters": model.count_params(),
                "seconds": time.perf_counter() - started,
                "versions": training.versions(),
                "date": time.strftime("%Y-%m-%d", time.gmtime()),
            }
            cell.write(document)
        found[name] = document
        print(f"{name}: validation AUC {document['val_auc']:.5f}, {document['seconds']:.0f} s", flush=True)
    return dict(sorted(found.items(), key=lambda item: -item[1]["val_auc"]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="ml-1m.zip")
    parser.add_argument("--candidates", nargs="*", choices=CANDIDATES, default=list(CANDIDATES))
    parser.add_argument("--max-updates", type=int, default=study.Recipe.max_updates)
    parser.add_argument("--patience", type=int, default=study.Recipe.patience, help="as for study.py")
    arguments = parser.parse_args()
    chosen = {name: CANDIDATES[name] for name in arguments.candidates}
    table = Table("candidate", "validation AUC", "parameters", title="Candidates, best first")
    budget = {"max_updates": arguments.max_updates, "patience": arguments.patience}
    for name, document in main(arguments.data, candidates=chosen, **budget).items():
        table.add_row(name, f"{100 * document['val_auc']:.2f}", f"{document['parameters']:,}")
    Console().print(table)
