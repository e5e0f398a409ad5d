"""A tiny teacher's guidance, and a process that dies."""

from collections.abc import Callable
from typing import Any

import pytest

from expressivegan.data import ImageSet
from expressivegan.training import Guide
from expressivegan.training.run import Run
from runs import Killed
from tiny import tiny_teacher


@pytest.fixture
def guide(phantoms: ImageSet) -> Guide:
    return Guide(tiny_teacher(), phantoms.classes, phantoms.reference)


@pytest.fixture
def kill_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """kill_after(n): the process dies in the middle of the step that would follow n images; None lets it live."""
    step = Run.step

    def arm(images: int | None) -> None:
        def dying(self: Run, check: Any) -> Any:
            if images is not None and self.seen >= images:
                self.draw(0)  # the streams have moved on, half a step is done
                raise Killed
            return step(self, check)

        monkeypatch.setattr(Run, "step", dying)

    return arm  # type: ignore[return-value]
