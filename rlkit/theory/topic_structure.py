r"""What one layer of attention learns from texts whose words come from disjoint topics.

T topics of v words each; a text's words follow a mixture of topics and are masked: a share q of a
long text's tokens is as it was, a share mu is [MASK], a share r is a word drawn from the whole
vocabulary. The layer sees averages of one-hot tokens (its attention), maps them by W^V, and is
trained on the squared distance to the one-hot word that was there.

    paper     here                         shape
    W^V       -                            [T v, T v + 1], the mask last
    -         `value_blocks`               its three numbers
    A         `attention_on_topics`        [.. T]

Source: Li, Li and Risteski 2023 [li2023topic] for the setting and the two stages (values first,
attention after); the closed forms are derived here.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from rlkit.typing import Scalar


class ValueBlocks(NamedTuple):
    """The three numbers of the optimal W^V."""

    same: float
    """Of two words of one topic."""
    different: float
    """Of two words of different topics."""
    mask: float
    """Of any word and the mask."""


def value_blocks(
    *, topics: int, words: int, kept: Scalar, masked: Scalar, replaced: Scalar = 0.0
) -> ValueBlocks:
    r"""The W^V of least norm that predicts every mixture of topics under uniform attention.

    It solves $W (q P + \mu e_{\text{mask}} + \tfrac{r}{T v} 1) = P$ for every mixture P, so it is
    constant on blocks, with

    $$W_{\text{same}} - W_{\text{diff}} = \frac1{v q}, \qquad
      (q + r) W_{\text{diff}} + \mu W_{\text{mask}} = -\frac{r}{v q T},$$

    and of the line that is left the point nearest to 0, which is where gradient descent from 0
    ends. `kept` is q > 0, `masked` mu, `replaced` r. The gap does not depend on the number of
    topics, nor on how many of them a text has. Derived here; the gap is the one of Li, Li and
    Risteski 2023 [li2023topic].
    """
    gap = 1 / (words * kept)
    # Per row, v entries `different + gap`, (T - 1) v entries `different`, one `mask`: the least
    # sum of squares on the line a x + b y = c.
    a, b, c = kept + replaced, masked, -replaced * gap / topics
    shift = gap / topics  # completes the square in x
    weight = topics * words
    # Minimise weight (x + shift)^2 + y^2.
    pull = (c + a * shift) / (a**2 / weight + b**2)
    different = pull * a / weight - shift
    return ValueBlocks(float(different + gap), float(different), float(pull * b))


def attention_on_topics(
    target: Float64[np.ndarray, "*queries t"], *, kept: Scalar
) -> Float64[np.ndarray, "*queries t"]:
    r"""The attention that a token pays to the words of each topic once W^V is optimal.

    $$A(t) = q \Pr(\text{the word to predict is of topic } t \mid \text{the token})$$

    What is left, 1 - q, goes to the mask. It makes the mean of the layer's output over a topic the
    conditional mean of its target, and W^V, constant on blocks, can say no more. For texts whose
    replaced words come from the text itself (so r = 0 and q + mu = 1) and whose topics do not
    exhaust all T; there it is unique. Derived here.
    """
    return kept * target


def same_topic_ratio(*, truthful: Scalar, per_text: int) -> float:
    r"""Attention to a word of one's own topic, over that to a word of another.

    $$\frac{1 + \rho (\tau - 1)}{1 - \rho}$$

    For texts of tau = `per_text` equally frequent topics, and tokens that are themselves what is to
    be predicted with probability rho = `truthful`, else drawn from the text. 1 at rho = 0, 2 at rho
    = 1/3 for two topics, infinite at rho = 1. From `attention_on_topics`; derived here.
    """
    above = 1 + truthful * (per_text - 1)
    return float(above / (1 - truthful)) if truthful < 1 else float("inf")
