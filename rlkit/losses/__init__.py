"""Losses: pure functions of embeddings, by family.

    contrastive     an anchor picks its positive among candidates: InfoNCE, NT-Xent, CLIP, SigLIP,
                    SupCon, proxies, and what weighs or strikes out negatives
    alignment       pairs close, everything else spread out, as two terms; dense feature maps
    redundancy      second moments: Barlow Twins, VICReg, spectral contrastive, whitening, coding
                    rates
    metric          distances and rankings: triplets, margins, few shots, gold scores
    equivariance    what augmentations change is kept: CARE, replaced tokens, common and salient
    hyperbolic      on curved space: rankings and links by distance, entailment cones, MERU
    probabilistic   embeddings as distributions: HIB, PCME, divergence scores, von Mises-Fisher
    mixup           mixtures of positives and negatives for a metric loss
    cached          the gradient of a large batch in the memory of a small one
    queue           negatives of past batches
    similarity      what a loss compares by: `cosine`, `dot`, distances
    in_batch        who is compared with whom: masks, ids, padding, blocks; for losses of your own

Nothing is imported here: `from rlkit.losses import contrastive`. Which loss is which under another
name: docs/losses.md.
"""
