"""Slow, obvious float64 versions of what rlkit computes, written from the papers.

Nothing here may import from rlkit.
"""

import math

import numpy as np

# --- similarities --------------------------------------------------------------------------------


def dot(x, y):
    return [[sum(a * b for a, b in zip(u, v, strict=True)) for v in y] for u in x]


def cosine(x, y):
    def unit(u):
        norm = math.sqrt(sum(a * a for a in u))
        return [a / norm for a in u] if norm > 0 else [0.0] * len(u)

    return dot([unit(u) for u in x], [unit(v) for v in y])


def rms_cosine(x, y):
    def rescale(points):
        rms = math.sqrt(sum(float(a) ** 2 for u in points for a in u) / len(points))
        return [[a / rms if rms > 0 else 0.0 for a in u] for u in points]

    return dot(rescale(x), rescale(y))


# --- losses --------------------------------------------------------------------------------------


def info_nce(anchor, positive, negatives=(), *, temperature=0.1, similarity=dot):
    """Van den Oord et al. 2018, eq. 4: minus the log-probability of the positive."""
    candidates = [*positive, *negatives]
    losses = []
    for i, row in enumerate(similarity(anchor, candidates)):
        logits = [s / temperature for s in row]
        losses.append(_log_sum_exp(logits) - logits[i])
    return np.array(losses)


def nt_xent(anchor, positive, *, temperature=0.5, similarity=cosine):
    """Chen et al. 2020, eq. 1, over the 2n views in the order anchors, positives."""
    views = [*anchor, *positive]
    n = len(anchor)
    table = similarity(views, views)
    losses = []
    for i in range(2 * n):
        partner = i + n if i < n else i - n
        others = [table[i][j] / temperature for j in range(2 * n) if j != i]
        losses.append(_log_sum_exp(others) - table[i][partner] / temperature)
    return np.array(losses)


def barlow_twins(anchor, positive, *, lambda_=5e-3):
    """Zbontar et al. 2021, eqs. 1 and 2; a constant dimension has no correlation."""
    n, d = anchor.shape
    loss = 0.0
    for i in range(d):
        for j in range(d):
            a = [anchor[b, i] - sum(anchor[:, i]) / n for b in range(n)]
            p = [positive[b, j] - sum(positive[:, j]) / n for b in range(n)]
            constant = np.ptp(anchor[:, i]) == 0 or np.ptp(positive[:, j]) == 0
            norms = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in p))
            c = 0.0 if constant else sum(x * y for x, y in zip(a, p, strict=True)) / norms
            loss += (1 - c) ** 2 if i == j else lambda_ * c**2
    return np.array(loss)


def barlow_twins_raw(anchor, positive, *, lambda_=5e-3):
    """The same of the symmetrised raw moments of Simon et al. 2023."""
    d = anchor.shape[1]
    correlation = cross_correlation(anchor, positive)
    loss = 0.0
    for i in range(d):
        for j in range(d):
            loss += (1 - correlation[i, i]) ** 2 if i == j else lambda_ * correlation[i, j] ** 2
    return np.array(loss)


def cross_correlation(anchor, positive):
    n, d = anchor.shape
    total = np.zeros((d, d))
    for z, z_prime in zip(anchor, positive, strict=True):
        total += np.outer(z, z_prime) + np.outer(z_prime, z)
    return total / (2 * n)


def vicreg(anchor, positive, *, lambda_=25.0, mu=25.0, nu=1.0, gamma=1.0, epsilon=1e-4):
    """Bardes et al. 2022, as released: mean over all entries, variance terms halved."""
    n, d = anchor.shape
    invariance = sum((anchor[i, j] - positive[i, j]) ** 2 for i in range(n) for j in range(d))
    variance, covariance = [], []
    for z in (anchor, positive):
        c = np.cov(z, rowvar=False).reshape(d, d) if n > 1 else np.zeros((d, d))
        variance.append(sum(max(0.0, gamma - math.sqrt(c[j, j] + epsilon)) for j in range(d)) / d)
        covariance.append(sum(c[i, j] ** 2 for i in range(d) for j in range(d) if i != j) / d)
    return np.array(lambda_ * invariance / (n * d) + mu * sum(variance) / 2 + nu * sum(covariance))


def spectral_contrastive(anchor, positive):
    """HaoChen et al. 2021, independent pairs: every ordered pair of the 2n views."""
    views = [*anchor, *positive]
    attract = sum(float(np.dot(z, p)) for z, p in zip(anchor, positive, strict=True)) / len(anchor)
    repel = sum(float(np.dot(u, v)) ** 2 for u in views for v in views) / len(views) ** 2
    return np.array(-2 * attract + repel)


def _log_sum_exp(values):
    largest = max(values)
    return largest + math.log(sum(math.exp(v - largest) for v in values))


# --- rank ----------------------------------------------------------------------------------------


def spectrum(z, *, center=True):
    """Eigenvalues of the d x d second moment about the mean (or about 0), the first min(n, d)."""
    n, d = z.shape
    mean = sum(z) / n if center else np.zeros(d)
    moment = sum(np.outer(row - mean, row - mean) for row in z) / n
    return np.sort(np.linalg.eigvalsh(moment))[::-1][: min(n, d)].clip(0)


def effective_rank(z, *, center=False, epsilon=1e-7):
    singular = np.sqrt(spectrum(z, center=center))
    p = singular / sum(singular) + epsilon
    return math.exp(-sum(q * math.log(q) for q in p if q > 0))


def participation_ratio(z, *, center=True):
    eigenvalues = spectrum(z, center=center)
    return sum(eigenvalues) ** 2 / sum(e**2 for e in eigenvalues)


def stable_rank(z, *, center=False):
    eigenvalues = spectrum(z, center=center)
    return sum(eigenvalues) / max(eigenvalues)
