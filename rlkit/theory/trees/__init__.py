"""Trees in hyperbolic space: by construction, by h-MDS, and what either must cost.

Everything is NumPy in double precision on the host, but for coordinates of points near the
boundary of the ball, which are whole numbers over a power of two (`FixedPoint`) and are computed by
mpmath. Shapes that do not fit raise a `jaxtyping.TypeCheckError`.
"""

from rlkit.theory.trees.bounds import (
    bits_at_radius,
    children_of,
    closure_weights,
    depths,
    distortion_bound,
    edge_length,
    edge_length_paper,
    edge_length_released,
    euclidean_packing_bound,
    largest_float_edge_length,
    least_bits,
    least_edge_length,
    star_distortion,
)
from rlkit.theory.trees.construction import (
    bits_needed,
    combinatorial,
    depths_by_weight,
    directions,
    smallest_angle,
)
from rlkit.theory.trees.fixed_point import (
    FixedPoint,
    distances,
    from_floats,
    radii,
    rounded,
    to_floats,
)
from rlkit.theory.trees.geodesic import PGA, centered, karcher_mean, pga
from rlkit.theory.trees.scaling import HMDS, h_mds, perturbation_bound, space_distances, to_ball

__all__ = [
    "HMDS",
    "PGA",
    "FixedPoint",
    "bits_at_radius",
    "bits_needed",
    "centered",
    "children_of",
    "closure_weights",
    "combinatorial",
    "depths",
    "depths_by_weight",
    "directions",
    "distances",
    "distortion_bound",
    "edge_length",
    "edge_length_paper",
    "edge_length_released",
    "euclidean_packing_bound",
    "from_floats",
    "h_mds",
    "karcher_mean",
    "largest_float_edge_length",
    "least_bits",
    "least_edge_length",
    "perturbation_bound",
    "pga",
    "radii",
    "rounded",
    "smallest_angle",
    "space_distances",
    "star_distortion",
    "to_ball",
    "to_floats",
]
