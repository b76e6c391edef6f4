"""Data: images with labels, and which of them are in the batch of a step.

`load(name, split, batch_size=…)` gives a `Source`; its `batch_at(step)` is a
pure function of (seed, step, shard), so there is no iterator to checkpoint.
Sets: `digits` (embedded, no network), `planted` (made here, with the truth as
a mask), any set that TensorFlow Datasets has prepared on this machine, and
one's own: an .npz file, a folder of images, a function by its path.
"""

from implicit_attr.data.loading import load
from implicit_attr.data.source import Source, assemble

__all__ = ['Source', 'assemble', 'load']
