"""Random streams are independent of each other, and can be put back."""

import pytest
import torch

from expressivegan.errors import CheckpointError
from expressivegan.streams import Streams, derive_seed, generator


def draw(streams: Streams, name: str, count: int = 8) -> list[float]:
    return torch.rand(count, generator=streams[name]).tolist()


def test_a_stream_depends_on_seed_and_name_alone() -> None:
    assert draw(Streams(0, ("a", "b")), "a") == draw(Streams(0, ("c", "a")), "a")
    assert draw(Streams(0, ("a",)), "a") != draw(Streams(1, ("a",)), "a")
    assert draw(Streams(0, ("a", "b")), "a") != draw(Streams(0, ("a", "b")), "b")


def test_drawing_from_one_stream_leaves_the_others() -> None:
    one, other = Streams(0, ("a", "b")), Streams(0, ("a", "b"))
    draw(one, "a", 1000)
    torch.manual_seed(5)
    assert draw(one, "b") == draw(other, "b")


def test_streams_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    draw(Streams(0, ("a",)), "a")
    assert torch.equal(torch.get_rng_state(), before)


def test_streams_are_not_correlated() -> None:
    a, b = (torch.randn(20_000, generator=generator(0, "image", i)) for i in (0, 1))
    assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1]) < 0.03


def test_the_state_puts_a_stream_back() -> None:
    streams = Streams(0, ("a", "b"))
    draw(streams, "a", 3)
    state = streams.state_dict()
    expected = draw(streams, "a"), draw(streams, "b")
    other = Streams(99, ("a", "b"))
    other.load_state_dict(state)
    assert (draw(other, "a"), draw(other, "b")) == expected


def test_a_state_of_other_streams_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"\['a'\].*\['b'\]"):
        Streams(0, ("b",)).load_state_dict(Streams(0, ("a",)).state_dict())


def test_seeds_know_types_and_boundaries() -> None:
    parts: list[tuple[int | str, ...]] = [(0, "a"), ("0", "a"), (0, "a", ""), ("0a",), (0, 1), (1, 0), (10,), (1, "0")]
    seeds = [derive_seed(*p) for p in parts]
    assert len(set(seeds)) == len(parts)
    assert all(0 <= s < 2**63 for s in seeds)


def test_seeds_are_the_same_on_every_machine_and_in_every_version() -> None:
    assert derive_seed(3, "latents", 7) == 5174569996815464766
