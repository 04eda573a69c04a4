"""A profile of anybody's embeddings: what they span, favour and lose, in numbers and sentences.

`python -m rlkit.profile embeddings.npy` from the command line, `measure` from Python.
"""

from rlkit.profile.report import Config as Config
from rlkit.profile.report import measure as measure
