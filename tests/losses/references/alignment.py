"""Alignment, uniformity and dense losses, pair by pair."""

import math

import numpy as np


def _squared(u, v):
    return sum((float(a) - float(b)) ** 2 for a, b in zip(u, v, strict=True))


def _log_mean_exp(exponents):
    if not exponents:
        return 0.0
    largest = max(exponents)
    return largest + math.log(sum(math.exp(e - largest) for e in exponents) / len(exponents))


def _unit(u):
    norm = math.sqrt(sum(float(a) ** 2 for a in u))
    return [float(a) / norm for a in u] if norm > 0 else [0.0] * len(u)


def _dot(u, v):
    return sum(float(a) * float(b) for a, b in zip(u, v, strict=True))


def alignment(anchor, positive, *, alpha=2):
    """Wang and Isola 2020: ||z - z'||^alpha of each pair."""
    return np.array(
        [math.sqrt(_squared(z, p)) ** alpha for z, p in zip(anchor, positive, strict=True)]
    )


def uniformity(z, *, t=2):
    """Log of the mean potential over unordered pairs."""
    n = len(z)
    return np.array(
        _log_mean_exp([-t * _squared(z[i], z[j]) for i in range(n) for j in range(i + 1, n)])
    )


def cross_uniformity(x, y, *, t=2):
    """Fahim et al. 2024: the same between modalities, i != j."""
    n = len(x)
    return np.array(
        _log_mean_exp([-t * _squared(x[i], y[j]) for i in range(n) for j in range(n) if i != j])
    )


def decoupled_uniformity(views, *, t=1):
    """Dufumier et al. 2023: of the centroids of the views of each example."""
    return uniformity([sum(v) / len(v) for v in views], t=t)


def kernel_decoupled_uniformity(views, prior, *, t=1, lambda_=0.01):
    """Each centroid is a combination of all, with weights (K + n lambda I)^{-1} K, K Gaussian."""
    n = len(views)
    kernel = np.array(
        [[math.exp(-_squared(a.ravel(), b.ravel()) / 20) for b in prior] for a in prior]
    )
    weights = np.linalg.inv(kernel + n * lambda_ * np.eye(n)) @ kernel
    means = [sum(v) / len(v) for v in views]
    centroids = [sum(weights[i, j] * means[j] for j in range(n)) for i in range(n)]
    return uniformity(centroids, t=t)


def spread_out(z):
    """Zhang et al. 2017: first and second moment of the inner products of different points."""
    n, d = z.shape
    products = [_dot(z[i], z[j]) for i in range(n) for j in range(n) if i != j]
    if not products:
        return np.array(0.0)
    first = sum(products) / len(products)
    second = sum(p * p for p in products) / len(products)
    return np.array(first**2 + max(0.0, second - 1 / d))


def dense_alignment(anchor, positive, *, match, alpha=2):
    """The mean over the matched cells of each image; a negative index is no match."""
    losses = []
    for cells, others in zip(anchor, positive, strict=True):
        costs = [
            math.sqrt(_squared(cells[k], others[m])) ** alpha for k, m in enumerate(match) if m >= 0
        ]
        losses.append(sum(costs) / len(costs))
    return np.array(losses)


def dense_uniformity(features, *, t=2):
    return np.array([float(uniformity(cells, t=t)) for cells in features])


def pixel_propagation(features, transformed, *, target, distance, threshold=0.7, gamma=2):
    """Xie et al. 2021, eqs. 3 to 5, one direction, one image after another."""
    losses = []
    for x, g in zip(features, transformed, strict=True):
        units = [_unit(u) for u in x]
        propagated = []
        for k in range(len(x)):
            y = np.zeros(g.shape[1])
            for m in range(len(x)):
                cosine = _dot(units[k], units[m])
                if cosine > 0:
                    y += cosine**gamma * g[m]
            propagated.append(y)
        cosines = [
            _dot(_unit(propagated[k]), _unit(target[m]))
            for k in range(len(x))
            for m in range(len(target))
            if distance[k][m] < threshold
        ]
        losses.append(-sum(cosines) / len(cosines))
    return np.array(losses)
