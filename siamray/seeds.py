"""One seed and a name go in, the seed of that name's own random generator comes out."""

import hashlib


def named_seed(seed: int, *names: str | int) -> int:
    """Derives the seed of a named generator: same seed and name, same numbers; another name, independent ones.

    Args:
        seed: the run's seed.
        names: what the numbers are for, such as ("order", epoch, rank).

    Returns:
        A number below 2**63.
    """
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
