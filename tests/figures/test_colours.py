"""The diverging colours of signed values, and the looks of arms."""

from __future__ import annotations

import numpy as np

from geomix.figures.style import COLOURS, SIGNED, arm_look

LUMA = [0.299, 0.587, 0.114]  # as printers take it


def test_signed_colours_diverge_from_a_light_neutral_zero() -> None:
    below = np.array([SIGNED(0.5 - x) for x in np.linspace(0, 0.5, 26)])[:, :3]
    above = np.array([SIGNED(0.5 + x) for x in np.linspace(0, 0.5, 26)])[:, :3]
    zero = np.array(SIGNED(0.5)[:3])
    assert zero.min() > 0.9
    assert np.ptp(zero) < 0.03
    for arm in (below, above):
        assert (np.diff(arm @ LUMA) < 0).all()  # larger values are darker, all the way
    assert (below[3:, 2] > below[3:, 0] + 0.05).all()  # bluer than red
    assert (above[3:, 0] > above[3:, 2] + 0.05).all()


def test_of_two_values_of_one_size_the_negative_is_the_darker_in_grey() -> None:
    sizes = np.linspace(0.1, 0.5, 17)
    darker = [(np.array(SIGNED(0.5 + x)[:3]) - np.array(SIGNED(0.5 - x)[:3])) @ LUMA for x in sizes]
    assert min(darker) > 0.03
    assert darker[-1] > 0.25


def test_more_arms_than_colours_have_looks_of_their_own() -> None:
    looks = {(c, m, str(ls)) for c, m, ls in map(arm_look, range(len(COLOURS) ** 2))}
    assert len(looks) == len(COLOURS) ** 2
    assert [arm_look(i)[0] for i in range(len(COLOURS))] == list(COLOURS)
