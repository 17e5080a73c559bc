"""How sure a figure is: 95 % intervals."""

import math

Z = 1.96


def wilson(successes: float, n: int, z: float = Z) -> tuple[float, float]:
    """The interval of a share, ``successes`` of ``n`` >= 1 (Wilson 1927).  A fraction: successes that count in part."""
    share, spread = successes / n, z * z / n
    half = z * math.sqrt(share * (1 - share) / n + spread / n / 4)
    low, high = (share + spread / 2 - half) / (1 + spread), (share + spread / 2 + half) / (1 + spread)
    return max(low, 0.0), min(high, 1.0)
