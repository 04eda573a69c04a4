"""Losses of distributions, one pair of samples at a time, from the papers' formulas."""

import itertools
import math

import numpy as np


def _sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))


def _log_sigmoid(x):
    return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))


def _log_mean(logarithms):
    largest = max(logarithms)
    return largest + math.log(np.mean([math.exp(a - largest) for a in logarithms]))


def _pairs(first, second):
    """The samples [k d] and [l d] of two inputs."""
    return itertools.product(first, second)


def match_probability(first, second, *, scale, offset):
    """Oh et al. 2019, of samples [k n d]."""
    return np.array(
        [
            np.mean(
                [
                    _sigmoid(offset - scale * np.linalg.norm(a - b))
                    for a, b in _pairs(first[:, i], second[:, i])
                ]
            )
            for i in range(first.shape[1])
        ]
    )


def soft_contrastive(first, second, matches, *, scale, offset):
    """Oh et al. 2019: the cross-entropy of a match."""
    losses = []
    for a, b, match in zip(first, second, matches, strict=True):
        logit = offset - scale * np.linalg.norm(a - b)
        losses.append(-_log_sigmoid(logit if match else -logit))
    return np.array(losses)


def hib(first, second, matches, divergence, *, scale, offset, beta, log_mean=False, inner=False):
    """Oh et al. 2019; Kirchhof et al. 2023 with inner products."""
    losses = []
    for i, match in enumerate(matches):
        logs = []
        for a, b in _pairs(first[:, i], second[:, i]):
            logit = scale * (a @ b if inner else -np.linalg.norm(a - b)) + offset
            logs.append(_log_sigmoid(logit if match else -logit))
        likelihood = _log_mean(logs) if log_mean else np.mean(logs)
        losses.append(beta * divergence[i] - likelihood)
    return np.array(losses)


def pcme(images, captions, *, scale, offset, eps):
    """Chun et al. 2021: the softmax of logits s and -s, as in the released code."""
    n = images.shape[1]
    table = np.empty((n, n))
    for i, j in np.ndindex(n, n):
        sign, logs = (1 if i == j else -1), []
        for a, b in _pairs(images[:, i], captions[:, j]):
            s = offset - scale * math.sqrt(np.sum((a - b) ** 2) + eps)
            logs.append(sign * s - (abs(s) + math.log1p(math.exp(-2 * abs(s)))))
        table[i, j] = -_log_mean(logs)
    return np.array([np.sum(table[i]) + np.sum(table[:, i]) for i in range(n)])


def gaussian_kl(mean, log_variance, prior_mean, prior_log_variance):
    """Kingma and Welling 2014, one coordinate after the other."""
    totals = []
    for row in zip(mean, log_variance, prior_mean, prior_log_variance, strict=True):
        total = 0.0
        for m, s, center, spread in zip(*row, strict=True):
            total += math.exp(s - spread) - 1 - (s - spread)
            total += (m - center) ** 2 / math.exp(spread)
        totals.append(total / 2)
    return np.array(totals)


def kl_score(query_mean, query_variance, document_mean, document_variance, *, printed=False):
    """Zamani and Bendersky 2023: minus twice the divergence, less what the query alone decides."""
    scores = np.empty((len(query_mean), len(document_mean)))
    for i, j in np.ndindex(*scores.shape):
        mq, vq, md, vd = query_mean[i], query_variance[i], document_mean[j], document_variance[j]
        trace = np.prod(vq) / np.prod(vd) if printed else np.sum(vq / vd)
        scores[i, j] = -(np.sum(np.log(vd)) + trace + np.sum((mq - md) ** 2 / vd))
    return scores


def log_normalizer_3d(kappa):
    """Of kappa / (4 pi sinh kappa), and of 1 / (4 pi) at 0."""
    if kappa == 0:
        return -math.log(4 * math.pi)
    return math.log(kappa / (2 * math.pi)) - kappa - math.log(-math.expm1(-2 * kappa))


def expected_likelihood_3d(x, y):
    """Of distributions whose parameter kappa mu is given, in three dimensions."""
    scores = np.empty((len(x), len(y)))
    for i, j in np.ndindex(*scores.shape):
        own = [log_normalizer_3d(np.linalg.norm(z)) for z in (x[i], y[j])]
        scores[i, j] = sum(own) - log_normalizer_3d(np.linalg.norm(x[i] + y[j]))
    return scores


def mc_info_nce(anchor, positive, *, temperature, with_positive=True):
    """Kirchhof, Kasneci and Oh 2023, of samples [k n d]."""
    samples, n, _ = anchor.shape
    losses = []
    for i in range(n):
        logs = []
        for k in range(samples):
            logits = positive[k] @ anchor[k, i] / temperature
            others = [j for j in range(n) if with_positive or j != i]
            logs.append(logits[i] - np.logaddexp.reduce(logits[others]) if others else 0.0)
        losses.append(-_log_mean(logs))
    return np.array(losses)


def loss_prediction(uncertainty, loss):
    """Kirchhof et al. 2023."""
    return np.array([(u - a) ** 2 for u, a in zip(uncertainty, loss, strict=True)])


def loss_ranking(uncertainty, loss, *, margin):
    """Yoo and Kweon 2019, over all pairs."""
    n = len(loss)
    totals = []
    for i in range(n):
        hinges = [
            max(0.0, margin - np.sign(loss[i] - loss[j]) * (uncertainty[i] - uncertainty[j]))
            for j in range(n)
            if j != i
        ]
        totals.append(sum(hinges) / max(n - 1, 1))
    return np.array(totals)
