"""Components of features in, places on a plane on which neighbours stay neighbours out; remembered while asked for."""

import threading
from functools import lru_cache

import numpy as np
import numpy.typing as npt

PERPLEXITY = 30
"""Neighbours that a sample is placed by; scikit-learn's default."""

STEPS = 500
"""Steps of the descent: half of scikit-learn's default, after which some hundred samples hardly move."""

_LOCK = threading.Lock()


def places(components: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Places samples by t-SNE (van der Maaten and Hinton 2008), seeded, from their principal components on.

    Some hundred samples take seconds; asked for the same again, it remembers them.

    Args:
        components: [N, F], finite.

    Returns:
        [N, 2]; of fewer than four samples all at 0.
    """
    # One at a time: two readers of one page would compute it twice.
    with _LOCK:
        return _placed(np.ascontiguousarray(components, dtype=np.float32).tobytes(), len(components))


@lru_cache(maxsize=128)
def _placed(components: bytes, samples: int) -> npt.NDArray[np.float64]:
    # Takes a second to import, which pages without it need not wait for.
    from sklearn.manifold import TSNE

    if samples < 4:
        return np.zeros((samples, 2))
    values = np.frombuffer(components, dtype=np.float32).reshape(samples, -1)
    perplexity = min(PERPLEXITY, (samples - 1) / 3)
    found = TSNE(2, perplexity=perplexity, max_iter=STEPS, init="pca", random_state=0).fit_transform(values)
    return np.asarray(found, dtype=np.float64)
