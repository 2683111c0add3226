"""The Fréchet distance of two sets of features, by torch-fidelity's own functions."""

import math

import numpy as np
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric


def frechet(fake: Tensor, real: Tensor) -> float:
    """Return the Fréchet distance of features (N, d) and (M, d); NaN where it has none."""
    statistics = map(fid_features_to_statistics, (fake, real))
    try:
        figures = fid_statistics_to_metric(*statistics, verbose=False)
        return figures["frechet_inception_distance"]
    except np.linalg.LinAlgError:  # the eigenvalues did not converge
        return math.nan


def intra_fid(fake: Tensor, fake_labels: Tensor, real: Tensor, real_labels: Tensor) -> float:
    """Return the mean over classes of the distance within each; NaN if one of them has none.

    Miyato and Koyama 2018, section 5.  Features are (N, d) float32, labels (N,) int64.
    """
    distances = []
    for label in fake_labels.unique():
        ours, theirs = fake[fake_labels == label], real[real_labels == label]
        if min(len(ours), len(theirs)) < 2:
            return math.nan
        distances.append(frechet(ours, theirs))
    return sum(distances) / len(distances)
