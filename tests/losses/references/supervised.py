"""Loops over pairs, written from the papers."""

import math

import numpy as np

from tests.references import cosine, dot


def supcon(embeddings, labels, negatives=(), *, temperature=0.1, similarity=cosine):
    """Khosla et al. 2020, eq. 2."""
    table = similarity(embeddings, [*embeddings, *negatives])
    losses = []
    for i, label in enumerate(labels):
        logits = {j: s / temperature for j, s in enumerate(table[i]) if j != i}
        positives = [j for j in logits if j < len(labels) and labels[j] == label]
        terms = [_log_sum_exp(logits.values()) - logits[p] for p in positives]
        losses.append(sum(terms) / len(terms) if terms else 0.0)
    return np.array(losses)


def n_pair(anchor, positive, *, l2_weight=0.0):
    """Sohn 2016: one plus a sum over the other classes' positives, and half the squared norms."""
    losses = []
    for i, row in enumerate(dot(anchor, positive)):
        others = [s - row[i] for j, s in enumerate(row) if j != i]
        squares = sum(float(x) ** 2 for x in (*anchor[i], *positive[i]))
        losses.append(_log_sum_exp([0.0, *others]) + l2_weight * squares / 2)
    return np.array(losses)


def lifted_structure(embeddings, labels, negatives=(), *, margin=1.0):
    """Song et al. 2016, eq. 4, over unordered pairs."""
    n = len(labels)
    everything = [*embeddings, *negatives]

    def distance(i, j):
        return math.dist(everything[i], everything[j])

    def opponents(i):
        return [j for j in range(len(everything)) if j >= n or labels[j] != labels[i]]

    total, pairs = 0.0, 0
    for i in range(n):
        for j in range(i):
            if labels[i] != labels[j]:
                continue
            pairs += 1
            exponents = [margin - distance(i, k) for k in opponents(i)]
            exponents += [margin - distance(j, k) for k in opponents(j)]
            if exponents:
                total += max(0.0, distance(i, j) + _log_sum_exp(exponents)) ** 2
    return np.array(total / (2 * pairs) if pairs else 0.0)


def multi_similarity(embeddings, labels, *, alpha=2.0, beta=50.0, base=0.5, epsilon=None):
    """Wang et al. 2019: mine the pairs of each anchor, then two soft hinges."""
    table = cosine(embeddings, embeddings)
    losses = []
    for i, label in enumerate(labels):
        pull = [s for j, s in enumerate(table[i]) if j != i and labels[j] == label]
        push = [s for j, s in enumerate(table[i]) if labels[j] != label]
        if epsilon is not None:
            if not pull or not push:
                losses.append(0.0)
                continue
            least, most = min(pull), max(push)
            pull = [s for s in pull if s < most + epsilon]
            push = [s for s in push if s > least - epsilon]
        losses.append(
            _log_sum_exp([0.0, *(-alpha * (s - base) for s in pull)]) / alpha
            + _log_sum_exp([0.0, *(beta * (s - base) for s in push)]) / beta
        )
    return np.array(losses)


def circle(embeddings, labels, *, margin=0.4, gamma=80.0, weigh_by=None):
    """Sun et al. 2020: optima 1 + m and -m, thresholds 1 - m and m, one query at a time.

    The weights are those of the embeddings `weigh_by`, by default the same.
    """
    table = cosine(embeddings, embeddings)
    weights = table if weigh_by is None else cosine(weigh_by, weigh_by)
    losses = []
    for i, label in enumerate(labels):
        pull, push = [], []
        for j, s in enumerate(table[i]):
            if labels[j] != label:
                push.append(gamma * max(0.0, weights[i][j] + margin) * (s - margin))
            elif j != i:
                pull.append(-gamma * max(0.0, 1 + margin - weights[i][j]) * (s - 1 + margin))
        products = [p + q for p in pull for q in push]
        losses.append(_log_sum_exp([0.0, *products]))
    return np.array(losses)


def proxy_nca(embeddings, labels, proxies):
    """Movshovitz-Attias et al. 2017: the own proxy is not in the denominator."""
    losses = []
    for row, label in zip(_squared_distances(embeddings, proxies), labels, strict=True):
        others = [-d for c, d in enumerate(row) if c != label]
        losses.append(row[label] + _log_sum_exp(others) if others else 0.0)
    return np.array(losses)


def proxy_nca_plus_plus(embeddings, labels, proxies, *, temperature=1 / 9):
    """Teh et al. 2020: minus the log-probability of the own proxy."""
    losses = []
    for row, label in zip(_squared_distances(embeddings, proxies), labels, strict=True):
        losses.append(_log_sum_exp([(row[label] - d) / temperature for d in row]))
    return np.array(losses)


def proxy_anchor(embeddings, labels, proxies, *, alpha=32.0, delta=0.1):
    """Kim et al. 2020: proxies with examples pull, all proxies push."""
    pull, push = [], []
    for c, row in enumerate(cosine(proxies, embeddings)):
        own = [-alpha * (s - delta) for s, label in zip(row, labels, strict=True) if label == c]
        other = [alpha * (s + delta) for s, label in zip(row, labels, strict=True) if label != c]
        if own:
            pull.append(_log_sum_exp([0.0, *own]))
        push.append(_log_sum_exp([0.0, *other]))
    return np.array(sum(pull) / max(len(pull), 1) + sum(push) / len(push))


def token_graph(embeddings, posterior, *, temperature=0.1):
    """Cross-entropy of the softmax of similarities to the edge weights of each token."""
    table = cosine(embeddings, embeddings)
    losses = []
    for i, p in enumerate(posterior):
        others = [j for j in range(len(posterior)) if j != i]
        edges = [sum(a * b for a, b in zip(p, posterior[j], strict=True)) for j in others]
        if sum(edges) == 0:
            losses.append(0.0)
            continue
        logits = [table[i][j] / temperature for j in others]
        log_sum = _log_sum_exp(logits)
        losses.append(
            sum(w * (log_sum - t) for w, t in zip(edges, logits, strict=True)) / sum(edges)
        )
    return np.array(losses)


def arbitrary_pairs(embeddings, labels, partners, gate_logits, *, temperature=0.1):
    """Gate every embedding with the gate of the anchor's class pair, then compare by cosine."""
    losses = []
    for i, pair in enumerate(zip(labels, partners, strict=True)):
        log_gate = [min(v, 0.0) - math.log1p(math.exp(-abs(v))) for v in gate_logits[i]]
        gate = [math.exp(v - max(log_gate)) for v in log_gate]  # a cosine knows no common factor
        gated = [[g * x for g, x in zip(gate, z, strict=True)] for z in embeddings]
        logits = [s / temperature for s in cosine([gated[i]], gated)[0]]
        positives = [t for j, t in enumerate(logits) if j != i and labels[j] in pair]
        negatives = [t for j, t in enumerate(logits) if labels[j] not in pair]
        terms = [_log_sum_exp([0.0, *(t - own for t in negatives)]) for own in positives]
        losses.append(sum(terms) / len(terms) if terms else 0.0)
    return np.array(losses)


def _squared_distances(points, proxies):
    """Of unit vectors; a zero vector counts as a direction orthogonal to all others."""
    return [[2 - 2 * s for s in row] for row in cosine(points, proxies)]


def _log_sum_exp(values):
    values = list(values)
    largest = max(values)
    return largest + math.log(sum(math.exp(v - largest) for v in values))
