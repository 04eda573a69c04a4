"""Losses on distances and on rankings: loops over triplets, pairs and lists."""

import math
import statistics

import numpy as np

# --- distances -----------------------------------------------------------------------------------


def squared_euclidean(u, v):
    return sum((float(a) - float(b)) ** 2 for a, b in zip(u, v, strict=True))


def euclidean(u, v):
    return math.sqrt(squared_euclidean(u, v))


def cosine_distance(u, v):
    norms = math.sqrt(sum(a * a for a in u)) * math.sqrt(sum(b * b for b in v))
    return 1 - (sum(a * b for a, b in zip(u, v, strict=True)) / norms if norms > 0 else 0.0)


# --- triplets and pairs --------------------------------------------------------------------------


def triplet(embeddings, labels, *, margin=0.3, mining="hard", distance=euclidean):
    """Hermans et al. 2017, Section 2, and FaceNet's semi-hard triplets; the mean of each anchor."""
    n = len(embeddings)
    losses = []
    for i in range(n):
        d = [distance(embeddings[i], x) for x in embeddings]
        positives = [d[j] for j in range(n) if j != i and labels[j] == labels[i]]
        negatives = [d[j] for j in range(n) if labels[j] != labels[i]]
        chosen = [(p, k) for p in positives for k in negatives]
        if mining == "hard" and chosen:
            chosen = [(max(positives), min(negatives))]
        if mining == "active":
            chosen = [(p, k) for p, k in chosen if k < p + margin]
        if mining == "semi_hard":
            chosen = [(p, k) for p, k in chosen if p < k < p + margin]
        losses.append(_mean([_triplet_cost(p, k, margin) for p, k in chosen]))
    return np.array(losses)


def _triplet_cost(to_positive, to_negative, margin):
    if margin is None:
        gap = to_positive - to_negative
        return max(gap, 0.0) + math.log1p(math.exp(-abs(gap)))
    return max(0.0, to_positive - to_negative + margin)


def _mean(values):
    return sum(values) / len(values) if values else 0.0


def margin_contrastive(embeddings, labels, *, positive_margin=0.0, negative_margin=1.0):
    """Hadsell et al. 2006, eq. 4, the mean over the pairs of each anchor."""
    losses = []
    for i, x in enumerate(embeddings):
        costs = []
        for j, y in enumerate(embeddings):
            d = euclidean(x, y)
            if labels[i] == labels[j] and i != j:
                costs.append(max(0.0, d - positive_margin) ** 2 / 2)
            elif i != j:
                costs.append(max(0.0, negative_margin - d) ** 2 / 2)
        losses.append(_mean(costs))
    return np.array(losses)


def global_ranking(anchor, positive, *, margin=0.2, side="both"):
    """Karpathy et al. 2014: hinges over wrong texts, and over wrong images, by cosines."""
    n = len(anchor)
    s = [[1 - cosine_distance(a, p) for p in positive] for a in anchor]
    losses = []
    for i in range(n):
        others = [j for j in range(n) if j != i]
        texts = sum(max(0.0, margin - s[i][i] + s[i][j]) for j in others)
        images = sum(max(0.0, margin - s[i][i] + s[j][i]) for j in others)
        losses.append(texts * (side != "anchor") + images * (side != "positive"))
    return np.array(losses)


# --- few shots -----------------------------------------------------------------------------------


def proto_triplet(queries, labels, prototypes, *, margin=0.5):
    losses = []
    for x, y in zip(queries, labels, strict=True):
        d = [euclidean(x, c) for c in prototypes]
        others = [d[c] for c in range(len(prototypes)) if c != y]
        losses.append(max(0.0, d[y] - min(others) + margin) if others else 0.0)
    return np.array(losses)


def icnn(embeddings, labels, *, k=4, omega=False):
    """The authors' score: lists of neighbours, ratios of distances, averages of averages."""
    n = len(embeddings)
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    if not any(labels[i] == labels[j] for i, j in pairs):
        return np.array(0.0)
    lists, border = [], []
    for i in range(n):
        # (distance, same class) of all others: of equal distances, other classes come first.
        others = sorted(
            (euclidean(embeddings[i], embeddings[j]), bool(labels[i] == labels[j]))
            for j in range(n)
            if j != i
        )
        border.append(min([d for d, same in others if not same], default=math.inf))
        lists.append(others[:k])

    def ratio(d, scale):
        return d / scale if scale > 0 else 1.0

    top = max([d for others in lists for d, same in others if not same], default=0.0)
    same_ratios, other_ratios = [], []
    for others, nearest in zip(lists, border, strict=True):
        scale = max(nearest, others[-1][0])
        same_ratios.append([ratio(d, scale) if same else None for d, same in others])
        other_ratios.append([None if same else ratio(d, top) for d, same in others])

    def mean_of_means(rows, empty):
        kept = [[x for x in row if x is not None] for row in rows]
        means = [sum(row) / len(row) for row in kept if row]
        return sum(means) / len(means) if means else empty

    def variance(rows):
        flat = [0.0 if x is None else x for row in rows for x in row]
        return statistics.variance(flat) if len(flat) > 1 else 0.0

    lambda_ = (1 - mean_of_means(same_ratios, 0.0) + mean_of_means(other_ratios, 1.0)) / 2
    gamma = sum(sum(same for _, same in row) / len(row) for row in lists) / n
    terms = [lambda_, gamma]
    if omega:
        terms.append(1 - variance(same_ratios) - variance(other_ratios))
    return np.array(-math.log(sum(terms) / len(terms)))


# --- rankings ------------------------------------------------------------------------------------


def order_cosine(scores, gold, *, scale=20.0):
    """Log of 1 plus a sum over all pairs, with the largest exponent taken out."""
    n = len(scores)
    exponents = [
        scale * (scores[a] - scores[b]) for a in range(n) for b in range(n) if gold[a] < gold[b]
    ]
    largest = max([0.0, *exponents])
    return np.array(
        largest + math.log(math.exp(-largest) + sum(math.exp(e - largest) for e in exponents))
    )


def pearson(scores, gold):
    n = len(scores)
    s = [float(x) - math.fsum(scores) / n for x in scores]
    y = [float(x) - math.fsum(gold) / n for x in gold]
    if len(set(map(float, gold))) == 1:
        return np.array(0.0)
    if len(set(map(float, scores))) == 1:
        return np.array(1.0)
    norms = math.sqrt(math.fsum(x * x for x in s)) * math.sqrt(math.fsum(x * x for x in y))
    return np.array(1 - math.fsum(a * b for a, b in zip(s, y, strict=True)) / norms)


def rank_kl(scores, gold, *, temperature=0.05):
    n = len(scores)
    ranks = []
    for y in gold:
        places = [place for place, x in enumerate(sorted(gold, reverse=True)) if x == y]
        ranks.append(sum(places) / len(places))
    ideal = [(n - 1 - rank) / max(n - 1, 1) / temperature for rank in ranks]
    log_p = _log_softmax(ideal)
    log_q = _log_softmax([s / temperature for s in scores])
    return np.array(sum(math.exp(p) * (p - q) for p, q in zip(log_p, log_q, strict=True)))


def _log_softmax(logits):
    largest = max(logits)
    total = largest + math.log(sum(math.exp(x - largest) for x in logits))
    return [x - total for x in logits]


def preference_ranking(scores, gold, *, temperature=0.05):
    """Down the sorted list: the head against what lies strictly below it."""
    order = sorted(range(len(gold)), key=lambda i: -gold[i])
    steps = []
    for place, i in enumerate(order):
        tail = [j for j in order[place + 1 :] if gold[j] < gold[i]]
        if not tail:
            continue
        gaps = [gold[i] - gold[j] for j in tail]
        logits = [scores[i] * max(gaps) / temperature]
        logits += [scores[j] * g / temperature for j, g in zip(tail, gaps, strict=True)]
        steps.append(-_log_softmax(logits)[0])
    return np.array(_mean(steps))
