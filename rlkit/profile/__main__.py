"""Profiles embeddings: rank, isotropy, intrinsic dimension, hubs, pairs, probes, redundancy.

Reads FILE, a .npy file of one row for each embedding (or of two paired sets, [2, n, d]), or an
array of an .npz file (--key). Writes a folder with report.html (one page that needs nothing else),
profile.pdf and profile.json. A .npy file is read piece by piece and may be larger than memory.
"""

import sys

from rlkit.profile.report import main

USAGE = __doc__ + "\npython -m rlkit.profile FILE [--flag=value ...]"

sys.exit(main(sys.argv[1:], usage=USAGE))
