"""Does a run diverge? What its losses say, in words."""

from collections.abc import Mapping

# Means over the images between two lines of the log. Healthy runs of 20 to 300 kimg at 64 px stayed below 2.2 and 0.7
# from the first line on (docs/training.md).
MOST_LOST_BY_G = 4.0
MOST_LOST_BY_D = 2.0


def divergence(figures: Mapping[str, float]) -> str | None:
    """A sentence where the adversarial game is no game any more, or None.

    Args:
        figures: means of the weighted terms of `adversarial_step` over a line of the log.

    >>> divergence({"g_adversarial": 0.9, "d_adversarial": 0.5})
    >>> divergence({"g_adversarial": 9.0, "d_adversarial": 0.0})
    'the run diverges: the discriminator tells real from made images by 9.0 logits (a game is below 4.0); ...'
    """
    way_out = "try a lower --rate, or a higher --gamma"
    if figures.get("g_adversarial", 0.0) > MOST_LOST_BY_G:
        return (
            f"the run diverges: the discriminator tells real from made images by {figures['g_adversarial']:.1f} "
            f"logits (a game is below {MOST_LOST_BY_G}); {way_out}"
        )
    if figures.get("d_adversarial", 0.0) > MOST_LOST_BY_D:
        return (
            f"the run diverges: the discriminator takes made images for real ones by {figures['d_adversarial']:.1f} "
            f"logits (a game is below {MOST_LOST_BY_D}); {way_out}"
        )
    return None
