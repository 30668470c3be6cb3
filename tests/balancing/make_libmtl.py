"""Writes `libmtl.json`: what LibMTL 1.1.5 makes of a few gradients, a second oracle beside the tests' own.

    pip install torch scipy && pip install --no-deps LibMTL==1.1.5
    python tests/balancing/make_libmtl.py

LibMTL needs PyTorch, so its numbers are kept instead of computed in the tests. Its random methods (random weighting,
GradDrop) have none here, nor has GradNorm's update of the weights, which it parametrises in another way.
"""

import json
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import torch

for vision in ("torchvision", "torchvision.models", "torchvision.models.utils"):  # for models that are not used here
    sys.modules[vision] = mock.MagicMock()

from LibMTL.weighting import DWA, EW, GLS, IMTL, MGDA, UW, CAGrad, GradNorm, GradVac, PCGrad  # noqa: E402

GRADIENTS = {
    "conflicting": [[1.0, 2.0, 0.0], [1.0, -1.0, 1.0]],
    "equal": [[1.0, 2.0, -1.0], [1.0, 2.0, -1.0]],
    "orthogonal": [[3.0, 0.0, 0.0], [0.0, 1.0, 1.0]],
    "three": [[2.0, 0.1, 0.3, 0.0], [-1.0, 1.5, 0.2, 0.5], [0.8, -0.6, 0.4, -1.0]],
}
LOSSES = [0.7, 0.3, 1.1]


def update(method, gradients, *, before=lambda weighting: None, **options):
    """The gradient that the shared parameters end with."""
    gradients = torch.tensor(gradients)

    class Weighting(method):
        def get_share_params(self):
            return [self.shared]

        def zero_grad_share_params(self):
            self.shared.grad.zero_()

    weighting = Weighting()
    weighting.task_num, weighting.device, weighting.rep_grad = len(gradients), "cpu", False
    weighting.shared = torch.nn.Parameter(torch.zeros(gradients.shape[1]))
    weighting.init_param()
    weighting.epoch, weighting.train_loss_buffer = 0, None
    before(weighting)
    losses = gradients @ weighting.shared + torch.tensor(LOSSES[: len(gradients)])
    weighting.backward(losses, **options)
    return weighting.shared.grad.tolist()


def scale(*values):
    """Sets the scales that the method learns."""

    def before(weighting):
        weighting.loss_scale.data = torch.tensor(values[: weighting.task_num])

    return before


def rho(value):
    """Sets GradVac's target."""

    def before(weighting):
        weighting.rho_T = torch.full((weighting.task_num, weighting.task_num), value)

    return before


def history(weighting):
    """Losses of the two epochs before."""
    weighting.epoch = 2
    weighting.train_loss_buffer = np.asarray([[0.9, 0.8], [0.6, 0.35], [1.2, 1.19]])[: weighting.task_num]


def main():
    """Computes and writes."""
    found = {"losses": LOSSES, "gradients": GRADIENTS, "updates": {}}
    for name, gradients in GRADIENTS.items():
        is_pair = len(gradients) == 2
        some = {
            "equal": update(EW, gradients),
            "uncertainty": update(UW, gradients, before=scale(0.2, -0.4, 0.1)),
            "dynamic_weight_average": update(DWA, gradients, before=history, T=2.0),
            "geometric": update(GLS, gradients),
            "grad_norm": update(
                GradNorm, gradients, before=lambda w: (history(w), scale(0.3, -0.1, 0.0)(w)), alpha=1.5
            ),
        }
        if is_pair:  # with more tasks the order is random
            some["pcgrad"] = update(PCGrad, gradients)
            some["grad_vac"] = update(GradVac, gradients, before=rho(0.6), beta=0.5)
        else:  # LibMTL's CAGrad is for three tasks
            some["cagrad"] = update(CAGrad, gradients, calpha=0.5, rescale=1)
        if name != "equal":  # there LibMTL divides by 0
            some["imtl"] = update(IMTL, gradients, before=scale(0.2, -0.4, 0.1))
        for normalize in ("none", "l2", "loss", "loss+"):
            some[f"mgda {normalize}"] = update(MGDA, gradients, mgda_gn=normalize)
        found["updates"][name] = some
    Path(__file__).with_name("libmtl.json").write_text(json.dumps(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
