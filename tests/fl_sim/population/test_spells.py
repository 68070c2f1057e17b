"""Recorded spells of availability: by hand, and against the plain search through all spells."""

import numpy as np
import pytest

from clients.profiles.equal import equal
from fl_sim.population.devices import Devices
from fl_sim.population.spells import NEVER, RecordedSpells

CLIENTS = np.array([0, 1, 3])
SPELLS = {0: [(0, 4)], 1: [(2, 5), (5, 9)], 3: [(1, 3), (6, 7)]}


def recorded(period: int = 0) -> RecordedSpells:
    """Clients 0, 1 and 3; client 2 has no spell."""
    flat = [spell for c in CLIENTS for spell in SPELLS[int(c)]]
    starts, ends = np.array(flat, np.int64).T
    return RecordedSpells("here", CLIENTS, np.array([0, 1, 3, 5]), starts, ends, period)


@pytest.mark.parametrize("period", [0, 10])
def test_spells_are_those_of_a_plain_search(period: int) -> None:
    spells, asked = recorded(period), np.array([3, 0, 2, 1])
    for now in range(25):
        phase = now % period if period else now
        there = [any(start <= phase < end for start, end in SPELLS.get(int(c), [])) for c in asked]
        assert spells.available(asked, now).tolist() == there
        for client, comes in zip(asked.tolist(), spells.comes(asked, now).tolist(), strict=True):
            later = [t for t in range(now, now + 25) if spells.available(np.array([client]), t)[0]]
            assert comes == (later[0] if later else NEVER)


def test_devices_ask_the_spells_of_their_profile() -> None:
    devices = Devices(equal(), spells=recorded())
    assert not devices.always and devices.told == "here" and Devices(equal()).always
    assert devices.available(np.arange(4), 3).tolist() == [True, True, False, False]
    assert devices.comes(np.arange(4), 3).tolist() == [3, 3, NEVER, 6]
