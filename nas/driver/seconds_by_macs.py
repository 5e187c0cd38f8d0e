"""Seconds as a straight line over MACs: a small network's are its layers' overhead."""

import math


class SecondsByMacs:
    """A line through what was measured so far, by least squares; neither its level nor its slope is negative."""

    def __init__(self) -> None:
        self._sums = (0, 0.0, 0.0, 0.0, 0.0)  # networks, MACs, MACs squared, seconds, MACs times seconds

    def __bool__(self) -> bool:
        """Tell whether anything is known."""
        return self._sums[0] > 0

    def add(self, macs: float, seconds: float) -> None:
        """Take in what a network took."""
        x, (n, sx, sxx, sy, sxy) = macs / 1e6, self._sums
        self._sums = n + 1, sx + x, sxx + x * x, sy + seconds, sxy + x * seconds

    def at(self, macs: float) -> float:
        """Return the seconds of a network; 0 before the first is known."""
        level, slope = self._line()
        return level + slope * macs / 1e6

    def macs_within(self, seconds: float) -> float:
        """Return the MACs of the dearest network that takes at most so long; unlimited while that is not known."""
        if not self:
            return math.inf
        level, slope = self._line()
        spare = seconds - level
        if slope <= 0:
            return math.inf if spare >= 0 else 0.0
        return max(0.0, 1e6 * spare / slope)

    def _line(self) -> tuple[float, float]:
        """Return the seconds of every network, and those for each million MACs."""
        n, sx, sxx, sy, sxy = self._sums
        if not n:
            return 0.0, 0.0
        spread = sxx - sx * sx / n
        slope = max(0.0, (sxy - sx * sy / n) / spread) if spread > 1e-9 * sxx else 0.0
        level = (sy - slope * sx) / n
        return (level, slope) if level >= 0 else (0.0, sxy / sxx)
