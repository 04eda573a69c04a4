r"""Contrastive losses: an anchor must pick its positive out of a set of candidates.

A loss here is a similarity, a set of candidates, and a formula for one anchor's row of them
(`rlkit.losses.in_batch`). Values are in nats, one per anchor, in at least float32. Shapes that do
not fit raise a `jaxtyping.TypeCheckError`.
"""

from rlkit.losses.contrastive.softmax import info_nce, nt_xent
from rlkit.losses.in_batch import log_partition
from rlkit.losses.similarity import cosine, dot, rms_cosine

__all__ = ["cosine", "dot", "info_nce", "log_partition", "nt_xent", "rms_cosine"]
