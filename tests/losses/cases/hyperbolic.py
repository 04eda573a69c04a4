"""Rows of the table: losses in curved space.

On the hyperboloid, whose points may have anything in place of their time component, so that all
inputs are legal. Turning time into space has no meaning.
"""

from functools import partial

import jax.numpy as jnp

from rlkit.losses import hyperbolic
from rlkit.manifolds import Lorentz
from tests.losses.case import Case, classes
from tests.losses.references import hyperbolic as references

LORENTZ = Lorentz(-0.7)


def _ranking(anchor, positive, first, second, *, where=None):
    """With two negatives for each pair."""
    negatives = jnp.stack([first, second], axis=1)
    return hyperbolic.poincare_ranking(anchor, positive, negatives, manifold=LORENTZ, where=where)


CASES = (
    Case(
        "lorentz_contrastive",
        partial(hyperbolic.lorentz_contrastive, curvature=-0.7, temperature=0.5),
        partial(references.lorentz_contrastive, c=0.7, temperature=0.5),
        rotation=True,
        scale=False,
        swap=True,
    ),
    Case(
        "entailment_cone",
        partial(hyperbolic.entailment_cone, curvature=-0.7),
        partial(references.entailment_cone, c=0.7, min_radius=0.1),
        rotation=True,
        scale=False,
        swap=False,
    ),
    Case(
        "poincare_ranking",
        _ranking,
        partial(references.poincare_ranking, c=0.7),
        rotation=None,
        scale=False,
        swap=False,
        shape=(8, 4),
        views=4,
    ),
    Case(
        "fermi_dirac",
        partial(hyperbolic.fermi_dirac, manifold=LORENTZ, r=1.5, t=0.5),
        partial(references.fermi_dirac, c=0.7, r=1.5, t=0.5),
        rotation=None,
        scale=False,
        swap=True,
        shape=(8, 4),
        labels=classes(2),
    ),
)
