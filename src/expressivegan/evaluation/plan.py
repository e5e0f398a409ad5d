"""One bar over steps of unlike length."""

from collections.abc import Callable, Mapping

Progress = Callable[[int, int, str], None]
_PARTS = 1000


class Plan:
    """Turns the progress of each step into that of the whole, so that the time left is that of all steps.

    Args:
        costs: step → how long it takes; only proportions matter.
        told: called with (done, 1000, words).
    """

    def __init__(self, costs: Mapping[str, float], told: Progress) -> None:
        self._costs = dict(costs)
        self._told = told
        self._over = 0.0  # of the steps that are done

    def step(self, name: str) -> Progress:
        """What to call with (done, total, words) while the step lasts."""

        def progress(done: int, total: int, words: str) -> None:
            part = self._costs[name] * min(1.0, done / total) if total else 0.0
            whole = self._over + sum(self._costs.values())
            self._told(int(_PARTS * (self._over + part) / whole), _PARTS, f"{name}: {words}" if words else name)

        return progress

    def skip(self, name: str) -> None:
        """The step need not be done: the whole is shorter by it, and nothing was done in no time."""
        self._costs.pop(name, None)

    def done(self, name: str) -> None:
        """The step is over."""
        self._over += self._costs.pop(name)
