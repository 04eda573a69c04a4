"""One layer of attention on masked texts of disjoint topics: first its values, then its attention.

Texts are infinitely long: what the layer sees of one is the distribution of its tokens. In the
first stage attention is uniform and W^V is trained from zero by gradient descent; in the second W^V
is the closed form, and the logits between every pair of words are trained by Adam.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rlkit.theory import topic_structure as theory
from rlkit.theory.checks import Check, generator

SOURCE = "Li, Li and Risteski 2023 [li2023topic]; closed form derived here"
EPS = np.finfo(float).eps


@dataclasses.dataclass(frozen=True)
class Values:
    """Texts for the first stage; masking as for BERT by default."""

    topics: int = 6
    words: int = 5
    alpha: float = 0.1
    rate: float = 0.15
    """p_m, the share of tokens to predict."""
    as_is: float = 0.1
    """p_c, the share of those that stay what they are."""
    random: float = 0.1
    """p_r, the share of those that become a random word."""
    shuffled: bool = False
    texts: int = 200
    steps: int = 1000

    @property
    def shares(self) -> dict[str, float]:
        """q, mu and r."""
        kept = 1 - self.rate * (1 - self.as_is)
        replaced = self.rate * self.random
        return {"kept": kept, "masked": 1 - kept - replaced, "replaced": replaced}


@dataclasses.dataclass(frozen=True)
class Trained:
    """W^V after training, and the extreme eigenvalues of the tokens' second moment."""

    case: Values
    topic_of: np.ndarray
    w: np.ndarray
    largest: float
    smallest: float


def draw(key, case: Values) -> Trained:
    """Texts from a Dirichlet prior over topics, and W^V from 0 by gradient descent."""
    rng = generator(key)
    size = case.topics * case.words
    topic_of = np.repeat(np.arange(case.topics), case.words)
    of_text = rng.permutation(topic_of) if case.shuffled else topic_of
    mixtures = rng.dirichlet(np.full(case.topics, case.alpha), size=case.texts)
    p = mixtures[:, of_text] / case.words
    shares = case.shares
    seen = shares["kept"] * p + shares["replaced"] / size
    seen = np.concatenate([seen, np.full((case.texts, 1), shares["masked"])], axis=1)
    moment = seen.T @ seen / case.texts
    spectrum = np.linalg.eigvalsh(moment)
    # The mixtures span one dimension a topic.
    largest, smallest = spectrum[-1], spectrum[-case.topics]
    w = _descend(moment, p.T @ seen / case.texts, 1 / largest, case.steps)
    return Trained(case, topic_of, np.asarray(w), largest, smallest)


@jax.jit
def _descend(moment, target, lr, steps):
    start = jnp.zeros_like(target)
    return jax.lax.fori_loop(0, steps, lambda _, w: w - lr * (w @ moment - target), start)


def _blocks(run: Trained) -> np.ndarray:
    case = run.case
    found = theory.value_blocks(topics=case.topics, words=case.words, **case.shares)
    same = run.topic_of[:, None] == run.topic_of[None]
    words = np.where(same, found.same, found.different)
    return np.concatenate([words, np.full((len(words), 1), found.mask)], axis=1)


def _blocks_tolerance(run: Trained) -> float:
    """What gradient descent has left of W, and roundings.

    Every direction of the tokens' span shrinks by 1 - smallest / largest a step at least. Moments
    are rounded as sums over the texts, which the smallest direction magnifies; outside of the span
    nothing shrinks, and every step leaves a rounding.
    """
    case, ratio = run.case, run.smallest / run.largest
    rounding = EPS * (case.texts / ratio + case.steps)
    return np.linalg.norm(run.w) * ((1 - ratio) ** case.steps + rounding)


# --- the second stage ----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Attention:
    """Texts of so many equally frequent topics, for the second stage."""

    truthful: float = 1 / 3
    """How often a token is itself what is to be predicted; else it is drawn from the text."""
    per_text: int = 2
    topics: int = 5
    words: int = 4
    kept: float = 0.865
    shuffled: bool = False
    steps: int = 2000


@dataclasses.dataclass(frozen=True)
class Attended:
    """Of every text and token: attention to each topic, and to the mask; the target's topic."""

    case: Attention
    target: np.ndarray
    attention: np.ndarray
    excess: np.ndarray


def _draw_attention(key, case: Attention) -> Attended:
    size = case.topics * case.words
    topic_of = np.repeat(np.arange(case.topics), case.words)
    texts, tokens = [], []
    for chosen in itertools.combinations(range(case.topics), case.per_text):
        inside = np.isin(topic_of, chosen)
        texts += [inside] * inside.sum()
        tokens += np.flatnonzero(inside).tolist()
    texts, tokens = np.array(texts), np.array(tokens)
    onehot = np.eye(case.topics)[topic_of]
    in_text = texts @ onehot / (case.words * case.per_text)
    target = case.truthful * onehot[tokens] + (1 - case.truthful) * in_text
    blocks = theory.value_blocks(
        topics=case.topics, words=case.words, kept=case.kept, masked=1 - case.kept
    )
    # All rows of a topic's block are the same: its words' mean is all there is to train on.
    values = blocks.different + (blocks.same - blocks.different) * np.eye(case.topics)[:, topic_of]
    values = np.concatenate([values, np.full((case.topics, 1), blocks.mask)], axis=1)
    keys = texts * case.kept / (case.words * case.per_text)
    keys = np.concatenate([keys, np.full((len(keys), 1), 1 - case.kept)], axis=1)
    # Shuffled: what plays the part of a word is another one, of the next topic.
    shown = (tokens + case.words) % size if case.shuffled else tokens
    start = 0.1 * jax.random.normal(key, (size, size + 1))
    attention, excess = _train(start, shown, keys, values, target / case.words, case.steps)
    attention = np.asarray(attention)[:, :-1] @ onehot
    if case.shuffled:
        # By the topics of the words that were shown.
        target = np.roll(target, 1, axis=1)
    return Attended(case, target, attention, case.words * np.asarray(excess))


@functools.partial(jax.jit, static_argnames="steps")
def _train(logits, shown, keys, values, target, steps: int):
    optimizer = optax.adam(optax.cosine_decay_schedule(0.1, steps))

    def attend(logits):
        weights = keys * jnp.exp(logits[shown])
        attention = weights / jnp.sum(weights, axis=1, keepdims=True)
        return attention, jnp.sum((attention @ values.T - target) ** 2, axis=1)

    gradient = jax.grad(lambda logits: jnp.mean(attend(logits)[1]))

    def step(_, state):
        logits, memory = state
        update, memory = optimizer.update(gradient(logits), memory)
        return logits + update, memory

    return attend(jax.lax.fori_loop(0, steps, step, (logits, optimizer.init(logits)))[0])


EXCESS = 1e-12


def _attention_tolerance(run: Attended) -> float:
    """What a loss that is `EXCESS` above its least allows of each topic's attention.

    A block's mean is off by sqrt(excess / v), and by gap times its attention plus what all blocks
    share; that is off by sqrt(excess / v (T - tau)), as seen in the topics that the text has not.
    """
    case = run.case
    gap = 1 / (case.words * case.kept)
    rest = case.topics - case.per_text
    return (1 + 1 / np.sqrt(rest)) * np.sqrt(EXCESS / case.words) / gap


CHECKS = (
    Check(
        name="topic structure: values are constant on blocks",
        source=SOURCE,
        statement="W^V has three numbers: same topic, other topic, mask; same - other = 1 / (v q)",
        data="texts of Dirichlet mixtures of topics",
        symbols={
            "W^V": "[V V + 1] values of words and of the mask",
            "v": "words of a topic",
            "q": "share of tokens that stay what they are",
        },
        predicted="the closed form, from the shares of masking",
        measured="W^V after descent from 0",
        broken="words filed under another topic",
        cases={
            "quick": {
                "T=6, v=5": Values(),
                "T=3, v=10": Values(3, 10),
                "T=6, v=5, p_m=0.5": Values(rate=0.5),
                "T=6, v=5, p_r=0": Values(random=0.0),
            },
            "paper": {
                f"T=10, v=10, alpha={alpha:g}, p_m={rate:g}": Values(
                    10, 10, alpha, rate, texts=10_000, steps=20_000
                )
                for alpha in (0.1, 1.0)
                for rate in (0.15, 0.5)
            },
        },
        draw=draw,
        assumptions={"texts span all topics": lambda run: run.smallest > 1e-4 * run.largest},
        predict=_blocks,
        measure=lambda run: run.w,
        relation="==",
        tolerance=_blocks_tolerance,
        # Who knows nothing of topics has one number for all words.
        trivial=lambda run: (1 - 1 / run.case.topics) / (run.case.words * run.case.shares["kept"]),
        # Words of a text share a topic, but not the one they are filed under.
        control=Values(shuffled=True),
    ),
    Check(
        name="topic structure: attention within topics",
        source=SOURCE,
        statement="A(t) = q Pr(the target's topic is t): doubled a word at rho = 1/3, tau = 2",
        data="every text of tau topics, every token",
        symbols={
            "A(t)": "attention to the words of topic t",
            "q": "share of tokens that are not masked",
            "rho": "how often a token is what is to be predicted",
            "tau": "topics of a text",
        },
        predicted="from rho and tau",
        measured="attention after training, summed over each topic",
        broken="a token's own topic is not the one that it tells of",
        cases={
            "quick": {
                "rho=1/3, tau=2": Attention(),
                "rho=0.5, tau=2": Attention(0.5),
                "rho=0.5, tau=3": Attention(0.5, 3),
            },
            "paper": {
                f"rho={rho:g}, tau={tau}, T=8": Attention(rho, tau, 8, 10, steps=5000)
                for rho in (0.1, 0.5, 0.8)
                for tau in (2, 3)
            },
        },
        draw=_draw_attention,
        assumptions={
            "a topic is missing": lambda run: run.case.per_text < run.case.topics,
            f"trained to within {EXCESS:g} of the least loss": lambda run: np.all(
                run.excess < EXCESS
            ),
        },
        predict=lambda run: theory.attention_on_topics(run.target, kept=run.case.kept),
        measure=lambda run: run.attention,
        relation="==",
        tolerance=_attention_tolerance,
        # Uniform attention.
        trivial=lambda run: np.abs(run.case.kept * (run.target - 1 / run.case.per_text)),
        # A token's own topic is not the one that it tells of.
        control=Attention(shuffled=True),
    ),
)
