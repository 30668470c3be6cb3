"""Tables 2 and 3 of the M3oE paper as they were published."""

from typing import NamedTuple

M3OE = "M3oE"


class Row(NamedTuple):
    """A row of Table 2: what is trained, and what was published, in percent.

    The published figures are the AUC of (domain 1, task 1), (domain 1, task 2), (domain 2, task 1) ... and the
    overall AUC and log loss.
    """

    name: str
    system: str
    setting: str
    movielens: tuple
    kuairand: tuple


TABLE_2 = (
    Row(
        *("MLP", "mlp", "single"),
        (75.02, 76.40, 76.27, 78.66, 73.21, 74.15, 75.62, 51.51),
        (58.42, 51.50, 69.28, 70.07, 61.82, 61.22, 62.05, 44.68),
    ),
    Row(
        *("ShBot-MTL", "shared_bottom", "MTL"),
        (75.36, 76.25, 75.90, 78.40, 72.51, 73.30, 75.28, 56.39),
        (61.33, 56.13, 68.62, 70.67, 63.99, 63.81, 64.09, 53.37),
    ),
    Row(
        *("PLE-MTL", "ple", "MTL"),
        (75.42, 76.23, 75.87, 78.32, 72.73, 72.49, 75.18, 56.49),
        (58.56, 53.48, 68.08, 69.39, 63.63, 63.32, 62.74, 54.05),
    ),
    Row(
        *("MMoE-MTL", "mmoe", "MTL"),
        (75.35, 76.96, 76.58, 78.73, 73.19, 74.63, 75.90, 51.27),
        (62.03, 60.19, 68.81, 70.91, 64.08, 64.32, 65.05, 44.07),
    ),
    Row(
        *("AdaTT", "adatt", "MTL"),
        (72.54, 74.24, 74.12, 73.01, 69.75, 70.25, 72.32, 58.72),
        (61.92, 60.59, 64.86, 67.28, 61.40, 60.65, 62.78, 44.41),
    ),
    Row(
        *("AdaTT-sp", "adatt_sp", "MTL"),
        (72.49, 73.51, 76.04, 77.59, 73.04, 74.26, 74.49, 54.65),
        (60.01, 58.28, 65.75, 68.06, 61.15, 60.35, 62.27, 48.80),
    ),
    Row(
        *("ShBot-MDL", "shared_bottom", "MDL"),
        (75.70, 76.50, 76.58, 78.10, 73.88, 74.76, 75.92, 51.53),
        (64.29, 63.36, 65.83, 67.22, 65.88, 65.47, 65.34, 44.04),
    ),
    Row(
        *("MMoE-MDL", "mmoe", "MDL"),
        (75.77, 76.50, 76.71, 78.37, 73.92, 75.16, 76.08, 51.48),
        (64.33, 63.00, 66.16, 67.39, 65.52, 65.27, 65.28, 44.28),
    ),
    Row(
        *("PLE-MDL", "ple", "MDL"),
        (75.64, 76.19, 76.48, 78.14, 73.73, 74.85, 75.84, 52.00),
        (64.02, 62.68, 66.13, 67.21, 65.62, 65.33, 65.16, 44.14),
    ),
    Row(
        *("STAR", "star", "MDL"),
        (75.89, 76.85, 76.87, 78.47, 73.68, 74.70, 76.08, 51.11),
        (64.12, 62.96, 64.91, 66.32, 65.73, 64.28, 64.72, 44.68),
    ),
    Row(
        *("ShBot-MDMT", "shared_bottom", "MDMT"),
        (75.94, 77.25, 76.56, 78.63, 73.97, 75.21, 76.26, 50.96),
        (63.32, 63.55, 65.80, 68.04, 64.45, 64.89, 65.01, 44.91),
    ),
    Row(
        *("MMoE-MDMT", "mmoe", "MDMT"),
        (76.07, 77.27, 76.86, 78.67, 73.83, 75.41, 76.35, 51.02),
        (63.50, 64.30, 65.70, 67.88, 65.61, 66.10, 65.52, 44.20),
    ),
    Row(
        *("PLE-MDMT", "ple", "MDMT"),
        (75.83, 76.95, 76.04, 78.48, 73.67, 75.09, 75.68, 51.90),
        (61.86, 61.88, 63.57, 66.09, 64.45, 63.47, 64.07, 44.67),
    ),
    Row(
        *("M2M", "m2m", "MDMT"),
        (74.12, 75.35, 75.08, 77.13, 72.11, 73.78, 74.59, 54.14),
        (61.29, 62.25, 60.44, 63.15, 61.75, 61.57, 61.74, 44.55),
    ),
    Row(
        *(M3OE, "m3oe", "MDMT"),
        (76.61, 78.13, 77.51, 79.33, 74.47, 76.09, 77.02, 50.71),
        (64.85, 65.89, 66.03, 68.31, 66.21, 66.91, 66.37, 43.76),
    ),
)


class Ablation(NamedTuple):
    """A row of Table 3: M3oE with other options, and its published overall AUC in percent."""

    name: str
    system: str
    options: dict
    movielens: float
    kuairand: float

    setting = "MDMT"


TABLE_3 = (
    Ablation("w/o AutoML", "m3oe_fixed", {"learn_fusion": False}, 76.37, 65.41),
    Ablation("Concat modules", "m3oe_concat", {"fusion": "concat"}, 76.89, 66.08),
    Ablation("Fully gated modules", "m3oe_gated", {"fusion": "gated"}, 76.92, 65.87),
    Ablation("w/o domain module", "m3oe_no_domain", {"domain_module": False}, 76.89, 65.86),
    Ablation("w/o task module", "m3oe_no_task", {"task_module": False}, 76.85, 65.92),
    Ablation("w/o domain&task module", "m3oe_common", {"domain_module": False, "task_module": False}, 76.80, 65.80),
    Ablation(M3OE, "m3oe", {}, 77.02, 66.37),
)
