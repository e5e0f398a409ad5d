"""How benchmarks end."""

import pytest

from benchmark_module import benchmark
from expressivegan.errors import InputError

ending = benchmark("ending")


@pytest.mark.parametrize(
    ("outcome", "code", "said"),
    [
        (0, 0, ""),
        (1, 1, ""),
        (None, None, ""),
        (InputError("--data (=x) is missing"), 2, "--data (=x) is missing"),
        (PermissionError(13, "Permission denied", "/there"), 2, "/there: Permission denied"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_a_mistake_is_one_sentence(
    outcome: object, code: int | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> object:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    with pytest.raises(SystemExit) as left:
        ending.leave(main)
    assert left.value.code == code
    found = capsys.readouterr().err
    assert said in found
    assert len(found.splitlines()) == bool(said)


def test_what_is_no_mistake_of_the_user_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        ending.leave(lambda: 1 // 0)
