"""Whitening, coding rates and the second form of the spectral loss, term by term."""

import math

import numpy as np


def unbiased_spectral_contrastive(anchor, positive):
    """HaoChen et al. 2021, with the pairs of different examples, one of each view."""
    n = len(anchor)
    table = [[float(np.dot(z, p)) for p in positive] for z in anchor]
    repel = [table[i][j] ** 2 for i in range(n) for j in range(n) if i != j]
    return np.array(-2 * sum(table[i][i] for i in range(n)) / n + sum(repel) / max(len(repel), 1))


def whiten(z, *, epsilon=0.0):
    """Ermolov et al. 2021: forward substitution with the Cholesky factor, row by row."""
    n, d = z.shape
    centered = z - sum(z) / n
    for j in range(d):
        if np.ptp(z[:, j]) == 0:
            centered[:, j] = 0
    covariance = sum(np.outer(v, v) for v in centered) / max(n - 1, 1)
    root = np.linalg.cholesky((1 - epsilon) * covariance + epsilon * np.eye(d))
    whitened = []
    for v in centered:
        w = np.zeros(d)
        for j in range(d):
            w[j] = (v[j] - sum(root[j, k] * w[k] for k in range(j))) / root[j, j]
        whitened.append(w)
    return np.array(whitened)


def w_mse(anchor, positive, *, epsilon=0.0, normalize=True):
    losses = []
    for v, w in zip(
        whiten(anchor, epsilon=epsilon), whiten(positive, epsilon=epsilon), strict=True
    ):
        if normalize:
            v, w = (u / math.sqrt(u @ u) if u @ u > 0 else u for u in (v, w))
        losses.append(sum((a - b) ** 2 for a, b in zip(v, w, strict=True)))
    return np.array(losses)


def coding_rate(z, *, epsilon=0.5**0.5):
    """Yu et al. 2020, eq. 7, by the eigenvalues of the second moment."""
    n, d = z.shape
    if n == 0:
        return np.array(0.0)
    moment = sum(np.outer(v, v) for v in z)
    eigenvalues = np.linalg.eigvalsh(moment).clip(0)
    return np.array(sum(math.log1p(d / (n * epsilon**2) * e) for e in eigenvalues) / 2)


def coding_rate_reduction(z, labels, *, classes, epsilon=0.5**0.5):
    rates = 0.0
    for k in range(classes):
        members = z[np.asarray(labels) == k]
        rates += len(members) / len(z) * float(coding_rate(members, epsilon=epsilon))
    return np.array(float(coding_rate(z, epsilon=epsilon)) - rates)
