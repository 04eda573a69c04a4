"""Equivariance, replaced-token detection and SepCLR, pair by pair."""

import math

import numpy as np

from tests.losses.references.alignment import _dot, _squared, _unit, uniformity


def _changes(anchor, positive, chunks):
    n = len(anchor)
    chunks = [0] * n if chunks is None else list(chunks)
    for i in range(n):
        yield [
            (_dot(positive[i], positive[j]) - _dot(anchor[i], anchor[j])) ** 2
            for j in range(n)
            if j != i and chunks[i] == chunks[j]
        ]


def care(anchor, positive, chunks=None):
    """Gupta et al. 2024: the mean over the other members of the chunk."""
    return np.array([sum(c) / max(len(c), 1) for c in _changes(anchor, positive, chunks)])


def care_row_sum(anchor, positive, chunks=None):
    """The same as in the released code: twice the sum of a row."""
    return np.array([2 * sum(c) for c in _changes(anchor, positive, chunks)])


def difference_prediction(logits, replaced, attended):
    """Chuang et al. 2022, eq. 3: cross-entropy of the two classes over the tokens of a sentence."""
    losses = []
    for row, answers, counted in zip(logits, replaced, attended, strict=True):
        costs = []
        for logit, answer, count in zip(row, answers, counted, strict=True):
            if count:
                margin = float(logit) if answer else -float(logit)
                costs.append(max(-margin, 0) + math.log1p(math.exp(-abs(margin))))
        losses.append(sum(costs) / max(len(costs), 1))
    return np.array(losses)


def joint_entropy(common, salient, *, tau=0.5):
    """Louiset et al. 2024: log of the mean product of two Gaussian kernels."""
    n = len(common)
    losses = []
    for i in range(n):
        exponents = [
            -(_squared(common[i], common[j]) + _squared(salient[i], salient[j])) / (2 * tau)
            for j in range(n)
        ]
        largest = max(exponents)
        total = sum(math.exp(e - largest) for e in exponents)
        losses.append(largest + math.log(total / n))
    return np.array(losses)


def common_salient(
    common,
    common_positive,
    salient,
    salient_positive,
    target,
    *,
    tau=0.5,
    weights=(2, 1000, 1000, 10),
):
    """The four terms of SepCLR, as its released code puts them together."""
    both, salient_term, null_term, entropy_term = weights
    c = [np.array([_unit(u) for u in z]) for z in (common, common_positive)]
    s = [salient, salient_positive]
    zeroed = [np.where(np.asarray(target)[:, None], z, 0.0) for z in s]

    def mean(values):
        values = list(values)
        return sum(values) / max(len(values), 1)

    def align(x, y):
        return mean(_squared(u, v) / (2 * tau) for u, v in zip(x, y, strict=True))

    def spread(codes):
        return mean(float(uniformity(z, t=1 / (2 * tau))) for z in codes)

    has = np.asarray(target, bool)
    loss = align(*c) + both * spread(c)
    loss += salient_term * (align(s[0][has], s[1][has]) + both * spread(zeroed))
    loss += null_term * mean(align(z[~has], 0 * z[~has]) for z in s)
    loss += entropy_term * mean(
        mean(joint_entropy(x, y, tau=tau)) for x, y in zip(c, zeroed, strict=True)
    )
    return np.array(loss)
