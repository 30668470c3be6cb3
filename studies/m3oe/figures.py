"""Figures 1 and 3 of the M3oE paper, from the cells and a model of `study.py`."""

import keras
import numpy as np

from studies.m3oe.published import M3OE, TABLE_2
from studies.m3oe.tables import figures
from tfmtr.reporting.charts import pyplot
from tfmtr.reporting.tsne import draw_points, tsne

NUM_ROWS = 300
DOMAINS = {"movielens": 1, "kuairand": 2}  # the domain that Figure 3 shows
FIGURE_1 = {"MLP": "MLP", "MMoE-MTL": "MMoE", "STAR": "STAR", M3OE: M3OE}
RANK_COLORS = ("#2c7fb8", "#7fcdbb", "#edf8b1", "#fdae61")  # best to worst


def figure_1(cells, file):
    """AUC by domain and task of the methods of Figure 1: gain over the MLP in percent, coloured by rank.

    Args:
        cells: Cells of one data set and protocol; the first seed of a method is shown.
        file: PNG to write.

    Returns:
        `file`, or `None` if a method has no cell yet.
    """
    plt = pyplot()
    keys = {(row.system, row.setting): FIGURE_1[row.name] for row in TABLE_2 if row.name in FIGURE_1}
    aucs = {}
    for cell in cells:
        name = keys.get((cell["recipe"]["system"], cell["recipe"]["setting"]))
        if name is not None and cell["recipe"]["seed"] == 0:
            aucs.setdefault(name, {k: v for k, v in figures(cell).items() if k[0] == "d"})
    if len(aucs) < len(FIGURE_1):
        return None
    methods, columns = list(FIGURE_1.values()), list(aucs["MLP"])
    values = np.asarray([[aucs[method][column] for column in columns] for method in methods], float)
    ranks = np.argsort(np.argsort(-values, axis=0), axis=0)
    figure, axes = plt.subplots(figsize=(1 + 1.5 * len(columns), 1 + 0.8 * len(methods)), layout="constrained")
    axes.imshow(ranks, cmap=plt.matplotlib.colors.ListedColormap(RANK_COLORS), vmin=0, vmax=len(methods) - 1)
    for (i, j), auc in np.ndenumerate(values):
        gain = "" if i == 0 else f"\n{100 * (auc / values[0, j] - 1):+.2f} %"
        axes.text(j, i, f"{auc:.2f}{gain}", ha="center", va="center")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(methods)), methods)
    axes.set_aspect("auto")
    axes.set_title("AUC in percent and gain over the MLP; colour: rank in the domain and task, blue is best")
    return save(figure, file)


def figure_3(model, x, domain, file):
    """t-SNE of what the modules of M3oE say about rows of one domain, for the first task.

    Args:
        model: The ranking model with `share="m3oe"`, weighted fusion and all modules.
        x: Inputs of the rows, all of `domain`.
        domain: Index of the domain, from 1.
        file: PNG to write.

    Returns:
        `file`.
    """
    plt = pyplot()
    panels = module_vectors(model, x, domain)
    figure, axes = plt.subplots(1, len(panels), figsize=(5 * len(panels), 4.5), layout="constrained")
    for axis, (title, groups) in zip(axes, panels.items(), strict=True):
        draw_points(axis, tsne(groups))
        axis.set_title(title)
        axis.legend(markerscale=2, fontsize="small")
    figure.suptitle(f"t-SNE, domain {domain}, first task, {len(next(iter(x.values())))} test rows")
    return save(figure, file)


def module_vectors(model, x, domain):
    """The vectors of the three panels: `{panel: {name: array of shape (rows, width)}}`."""
    tensors = {name: model.get_layer(f"{name}_experts").output for name in ("domain", "task")}
    first = next(iter(model.predictor.output))
    tensors["fused"] = model.get_layer(f"{first}_tower_0").input[0]
    v = keras.Model(model.inputs, tensors).predict(x, verbose=0, batch_size=4096)

    def module(name, own):
        """Equations 5 and 6: what the module says of rows whose own scenario or task is number `own`, without alpha."""
        beta, experts = learnt(model, f"beta_{name[0]}")[own], v[name]
        others = np.delete(experts, own, axis=1).mean(axis=1)
        return beta * experts[:, own] + (1 - beta) * others

    def apart(what, fused):
        return {f"{what} {i + 1}": v[what][:, i] for i in range(v[what].shape[1])} | {"fused": fused}

    domains, tasks = module("domain", domain - 1), module("task", 0)
    own, task = learnt(model, "alpha_d")[domain - 1] * domains, learnt(model, "alpha_t")[0] * tasks
    return {
        "domain experts": apart("domain", domains),
        "task experts": apart("task", tasks),
        "multi-view experts": {"shared": v["fused"] - own - task, "domain": own, "task": task, "fused": v["fused"]},
    }


def learnt(model, name):
    """The fusion weights of a name."""
    return keras.ops.convert_to_numpy(keras.ops.sigmoid(model.get_layer(name).fusion_logit))


def save(figure, file):
    """Writes and closes a figure; returns the file."""
    figure.savefig(file, dpi=110)
    pyplot().close(figure)
    return file
