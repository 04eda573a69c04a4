"""Loops over anchors and candidates, written from the papers."""

import math

import numpy as np

from tests import references
from tests.references import cosine

# --- the softmax and the sigmoid over a batch -----------------------------------------------------


def clip(anchor, positive, negatives=(), *, temperature=0.07):
    """Radford et al. 2021, figure 3: cross-entropy of rows and of columns."""
    rows = references.info_nce(
        anchor, positive, negatives, temperature=temperature, similarity=cosine
    )
    columns = references.info_nce(positive, anchor, temperature=temperature, similarity=cosine)
    return (rows + columns) / 2


def siglip(anchor, positive, *, t=10.0, b=-10.0):
    """Zhai et al. 2023, algorithm 1; log(1 + e^x) is -log sigmoid(-x)."""
    losses = []
    for i, row in enumerate(cosine(anchor, positive)):
        signs = [1 if j == i else -1 for j in range(len(row))]
        losses.append(
            sum(math.log1p(math.exp(-y * (t * s + b))) for y, s in zip(signs, row, strict=True))
        )
    return np.array(losses)


def decoupled(anchor, positive, *, temperature=0.1, sigma=None):
    """Yeh et al. 2022: the positive is left out of the denominator, and its term is weighted."""
    n = len(anchor)
    losses = []
    pairs = [cosine([a], [p])[0][0] for a, p in zip(anchor, positive, strict=True)]
    for i, (own, others) in enumerate(_views(anchor, positive)):
        weight = 1.0
        if sigma is not None:
            mean = sum(math.exp(s / sigma) for s in pairs) / n
            weight = 2 - math.exp(pairs[i % n] / sigma) / mean
        negative = sum(math.exp(s / temperature) for s in others)
        losses.append(math.log(negative) - weight * own / temperature if others else 0.0)
    return np.array(losses)


def improved_info_nce(anchor, positive, *, temperature=0.01):
    """Li et al. 2023: four sums, two of them with the positive."""

    def e(x, y):
        return math.exp(cosine([x], [y])[0][0] / temperature)

    losses = []
    for i, (q, p) in enumerate(zip(anchor, positive, strict=True)):
        partition = sum(e(q, other) for other in positive)
        partition += sum(e(q, other) for j, other in enumerate(anchor) if j != i)
        partition += sum(e(other, p) for other in anchor)
        partition += sum(e(other, p) for j, other in enumerate(positive) if j != i)
        losses.append(-math.log(e(q, p) / partition))
    return np.array(losses)


# --- weights on anchors ---------------------------------------------------------------------------


def macl(anchor, positive, *, tau0=0.1, alpha=0.5, a0=0.0):
    """Huang et al. 2023: NT-Xent at the temperature of the batch, over 1 - P."""
    pairs = [cosine([a], [p])[0][0] for a, p in zip(anchor, positive, strict=True)]
    tau = tau0 * (1 + alpha * (sum(pairs) / len(pairs) - a0))
    losses = []
    for own, others in _views(anchor, positive):
        # 1 - P over P: the difference 1 - P has no digits left where P is close to 1.
        odds = sum(math.exp((s - own) / tau) for s in others)
        losses.append(math.log1p(odds) * (1 + odds) / odds if others else 0.0)
    return np.array(losses)


def focal_reweighted(anchor, positive, *, temperature=0.02, gamma=0.5):
    """Zhao et al. 2025: InfoNCE times a power of 1 - P."""
    losses = references.info_nce(anchor, positive, temperature=temperature, similarity=cosine)
    return np.array([max(-math.expm1(-x), 0.0) ** gamma * x for x in losses])


# --- weights on negatives -------------------------------------------------------------------------


def debiased(anchor, positive, *, temperature=0.5, tau_plus=0.1):
    """Chuang et al. 2020, eqs. 7 and 8."""
    return hard_negative(anchor, positive, temperature=temperature, beta=0.0, tau_plus=tau_plus)


def hard_negative(anchor, positive, negatives=(), *, temperature=0.5, beta=1.0, tau_plus=0.1):
    """Robinson et al. 2021: importance weights on the negatives, then the debiased estimate."""
    losses = []
    for own, others in _views(anchor, positive, negatives):
        n = len(others)
        pos = math.exp(own / temperature)
        exponentials = [math.exp(s / temperature) for s in others]
        mean = sum(e**beta for e in exponentials) / n if n else 1.0
        total = sum(e**beta / mean * e for e in exponentials)
        unbiased = (total - tau_plus * n * pos) / (1 - tau_plus)
        losses.append(math.log1p(max(unbiased, n * math.exp(-1 / temperature)) / pos))
    return np.array(losses)


def hardness_weighted(anchor, positive, weigh=None, *, temperature=0.02, alpha=9.0):
    """Lan et al. 2025, both ways; `weigh` are the similarities in the weights, if held fixed."""
    table = np.array(cosine(anchor, positive))
    weigh = table if weigh is None else np.array(weigh)
    losses = []
    for i in range(len(table)):
        both = 0.0
        for row, weights in ((table[i], weigh[i]), (table[:, i], weigh[:, i])):
            negative = sum(
                math.exp(alpha * w) * math.exp((s - row[i]) / temperature)
                for j, (s, w) in enumerate(zip(row, weights, strict=True))
                if j != i
            )
            both += math.log1p(negative) / 2
        losses.append(both)
    return np.array(losses)


# --- masks from a second model --------------------------------------------------------------------


def gist(
    anchor,
    positive,
    guide_anchor,
    guide_positive,
    negatives=(),
    guide_negatives=(),
    *,
    temperature=0.01,
    margin=0.0,
    relative=False,
    kinds="qp qq pp",
):
    """Solatorio 2024: a candidate above the guide's threshold is struck out."""
    losses = []
    for i, (q, p) in enumerate(zip(anchor, positive, strict=True)):
        q_guide, p_guide = guide_anchor[i], guide_positive[i]
        best = cosine([q_guide], [p_guide])[0][0]
        threshold = best * (1 - margin) if relative else best - margin
        own = cosine([q], [p])[0][0]
        pairs = []
        for j in range(len(anchor)):
            if j != i:
                pairs.append(("qp", q, positive[j], q_guide, guide_positive[j]))
                pairs.append(("qq", q, anchor[j], q_guide, guide_anchor[j]))
                pairs.append(("pp", p, positive[j], p_guide, guide_positive[j]))
        for h, h_guide in zip(negatives, guide_negatives, strict=True):
            pairs.append(("qp", q, h, q_guide, h_guide))
        odds = 0.0
        for kind, x, y, x_guide, y_guide in pairs:
            if kind in kinds and not cosine([x_guide], [y_guide])[0][0] > threshold:
                odds += math.exp((cosine([x], [y])[0][0] - own) / temperature)
        losses.append(math.log1p(odds))
    return np.array(losses)


def dclr(anchor, positive, guide_anchor, guide_positive, noise=(), *, temperature=0.05, phi=0.9):
    """Zhou et al. 2022, Section 3: weights 0 and 1 on the batch, 1 on the noise."""
    guide = cosine(guide_anchor, guide_positive)
    table = cosine(anchor, [*positive, *noise])
    losses = []
    for i, row in enumerate(table):
        odds = 0.0
        for j, s in enumerate(row):
            weight = 0 if j == i or (j < len(positive) and guide[i][j] >= phi) else 1
            odds += weight * math.exp((s - row[i]) / temperature)
        losses.append(math.log1p(odds))
    return np.array(losses)


def _views(anchor, positive, negatives=()):
    """For each of the 2n views: its cosine with its partner, and with all others."""
    views = [*anchor, *positive]
    n = len(anchor)
    for i, row in enumerate(cosine(views, [*views, *negatives])):
        partner = (i + n) % (2 * n)
        yield row[partner], [s for j, s in enumerate(row) if j not in (i, partner)]
