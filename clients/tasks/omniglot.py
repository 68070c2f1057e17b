"""Omniglot: few-shot classification of handwritten characters. A client is an episode, that is one small task.

B. Lake, R. Salakhutdinov, J. Tenenbaum, "Human-level concept learning through probabilistic program induction", Science
350, 2015: 1623 characters of 50 alphabets, 20 pictures each. Episodes as in O. Vinyals et al., "Matching Networks for
One Shot Learning", NeurIPS 2016, arXiv:1606.04080, C. Finn et al. (MAML), ICML 2017, and A. Nichol et al. (Reptile),
2018, arXiv:1803.02999: 1200 characters, drawn at random, train, and the other 423 test; a training character turned by
90, 180 or 270 degrees is a class of its own.

Pictures are stored once; an episode is a list of numbers, 16 bytes a sample.

Legend: M pictures, B batch, K ways, C clients, N = C K (shots + queries).
"""

import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from clients.sources.data_folder import file_in
from fl_sim import rng
from fl_sim.learning.measures import accuracy
from fl_sim.learning.task import Task
from fl_sim.learning.transform import Lookup
from fl_sim.registry import offer
from fl_sim.tree import Tree

SIDE, TURNED = 28, 4
"""Pixels of a side; how many ways a picture is turned."""
TRAINING_SHARE = 1200 / 1623
"""Of the characters, those that train where episodes are of all alphabets."""
TEST_EPISODES = 20
"""Episodes of test characters in the central test set; they belong to no client."""
HOLDS = "images (characters, 20, 28, 28) uint8 with ink 255, alphabet and background (characters,)"


@dataclass(frozen=True)
class Pictures(Lookup):
    """Looks up pictures: x = 4 * picture + quarter turns -> x (B, 1, 28, 28), ink 1 on 0."""

    pixels: Tensor
    """(M, 784) uint8."""
    turned: Tensor
    """(4, 784) int64: from which pixel each pixel comes, by the number of quarter turns."""
    dtype: torch.dtype = torch.float32

    def placed(self, dtype: torch.dtype, device: torch.device) -> "Pictures":
        """See ``Lookup.placed``."""
        return replace(self, pixels=self.pixels.to(device), turned=self.turned.to(device), dtype=dtype)

    def __call__(self, batch: Tree, words: Tensor | None) -> Tree:
        """See ``Lookup``; nothing is drawn."""
        x = batch["x"]
        found = self.pixels[(x // TURNED)[..., None], self.turned[x % TURNED]]
        return {**batch, "x": (found.to(self.dtype) / 255).reshape(*x.shape, 1, SIDE, SIDE)}


@dataclass(frozen=True)
class Characters:
    """From which characters episodes are drawn."""

    groups: tuple[np.ndarray, ...]
    """Characters of which an episode has its K; each episode draws one of the groups."""
    turned: bool
    """Whether turned characters are classes too."""
    together: bool
    """Whether all characters of an episode are turned alike, and are of one group."""


@offer("task", default_model="conv4")
def omniglot(
    data_dir: str | None = None,
    clients: int = 1000,
    holdout_clients: int = 0,
    ways: Annotated[int, Ge(2)] = 5,
    shots: Annotated[int, Ge(1)] = 1,
    queries: Annotated[int, Ge(1)] = 15,
    by: Literal["episode", "alphabet"] = "episode",
    seed: int = 0,
) -> Task:
    """Each natural client is an episode: ``ways`` characters, ``shots + queries`` pictures of each, x (1, 28, 28).

    A character's class, 0..ways-1, is its place in the episode. The ``holdout_clients`` last clients are episodes of
    characters that no other client has, without turned ones. An episode depends on its number and the seed alone. The
    order of a client's samples is in turns of its classes, so that what it holds out (``--partition.unseen_held_out``,
    queries / (shots + queries)) is the same number of each. The central test set, 20 further episodes of such
    characters, shows the model before it adapts: about chance. ``seed`` is of the split and the episodes.

    Parameters
    ----------
    ways : int (default: 5)
        Characters of an episode.
    shots, queries : int (default: 1, 15)
        Pictures of each character to adapt to, and further ones.
    by : {"episode", "alphabet"}
        episode: characters of all alphabets, 1200 for training; alphabet: an episode's characters are of one alphabet,
        turned alike, 30 alphabets (the authors' background set) for training and 20 for clients that never train.

    Raises
    ------
    ValueError
        For numbers out of range, more pictures than a character has, and where the data are missing or damaged.
    """
    _check(clients, holdout_clients, ways, shots, queries, seed)
    images, alphabet, background = _read(file_in("omniglot", data_dir, "omniglot.npz", HOLDS))
    if shots + queries > images.shape[1]:
        what = f"a character has {images.shape[1]} pictures"
        raise ValueError(f"task.shots = {shots}, task.queries = {queries}: {what}; choose at most as many together")
    train, test = _split(alphabet, background, by, seed, ways)
    first, size = clients - holdout_clients, (shots + queries, images.shape[1])
    parts = [
        _episodes(train, rng.key(seed, "omniglot"), first, ways, *size),
        _episodes(test, rng.key(seed, "omniglot-unseen"), holdout_clients, ways, *size),
    ]
    x, held = np.concatenate(parts), _episodes(test, rng.key(seed, "omniglot-test"), TEST_EPISODES, ways, *size)
    own, central = (_samples(rows, ways) for rows in (x, held))
    return Task(
        "omniglot",
        own,
        central,
        outputs=ways,
        metrics={"accuracy": accuracy},
        transform=Pictures(torch.from_numpy(images.reshape(-1, SIDE * SIDE)), _turned()),
        labels=own["y"].numpy(),
        clients=np.repeat(np.arange(clients), ways * (shots + queries)),
        sample_shape=(1, SIDE, SIDE),
        turns=ways,
    )


def _check(clients: int, holdout_clients: int, ways: int, shots: int, queries: int, seed: int) -> None:
    """Raise ValueError that names the number that is out of range."""
    if not 0 <= seed < 1 << 63:
        raise ValueError(f"task.seed = {seed}: must lie in 0..2^63 - 1")
    for name, value, least in (("ways", ways, 2), ("shots", shots, 1), ("queries", queries, 1)):
        if value < least:
            raise ValueError(f"task.{name} = {value}: must be at least {least}")
    if not 0 <= holdout_clients < clients:
        raise ValueError(f"holdout_clients = {holdout_clients}: of {clients} clients; keep one to train")


def _read(file: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(images, the alphabet of each character, whether it is in the background set). Raises ValueError."""
    try:
        with np.load(file, allow_pickle=False) as found:
            images, alphabet, background = (found[name] for name in ("images", "alphabet", "background"))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file}: cannot be read ({error}); it must hold {HOLDS}") from error
    fits = images.ndim == 4 and images.shape[2:] == (SIDE, SIDE) and images.dtype == np.uint8
    if not fits or not len(images) == len(alphabet) == len(background):
        raise ValueError(f"{file}: images {images.dtype} {images.shape}; it must hold {HOLDS}")
    return images, alphabet, background.astype(bool)


def _samples(rows: np.ndarray, ways: int) -> Tree:
    return {"x": torch.from_numpy(rows), "y": torch.arange(ways).repeat(len(rows) // ways)}


def _turned() -> Tensor:
    """``Pictures.turned``."""
    places = torch.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    return torch.stack([torch.rot90(places, k).reshape(-1) for k in range(TURNED)])


def _split(
    alphabet: np.ndarray, background: np.ndarray, by: str, seed: int, ways: int
) -> tuple[Characters, Characters]:
    """(the characters that train, those that never train). Raises ValueError where a half has too few."""
    if by == "alphabet":
        halves = [_alphabets(alphabet, half, ways) for half in (background, ~background)]
        train, test = (Characters(groups, turned, True) for groups, turned in zip(halves, (True, False), strict=True))
    else:
        order = rng.permutation(rng.key(seed, "omniglot-split"), len(alphabet))
        count = round(TRAINING_SHARE * len(order))
        train, test = Characters((order[:count],), True, False), Characters((order[count:],), False, False)
    for half, found in (("training", train), ("test", test)):
        least = ways if found.together or not found.turned else -(-ways // TURNED)
        if not any(len(group) >= least for group in found.groups):
            what = f"{max((len(group) for group in found.groups), default=0)} {half} characters"
            raise ValueError(f"task.ways = {ways}: there are {what}{' of one alphabet' * found.together}; choose fewer")
    return train, test


def _alphabets(alphabet: np.ndarray, half: np.ndarray, ways: int) -> tuple[np.ndarray, ...]:
    """The characters of each alphabet of a half that has at least ``ways``."""
    every = (np.flatnonzero(half & (alphabet == a)) for a in np.unique(alphabet[half]))
    return tuple(group for group in every if len(group) >= ways)


def _episodes(found: Characters, key: int, count: int, ways: int, each: int, pictures: int) -> np.ndarray:
    """(count * K * each,) int64: what ``Pictures`` looks up, episode after episode, each in turns of its K classes."""
    if not count:
        return np.empty(0, np.int64)
    keys = rng.keys(key, count)
    drawn = np.array([_classes(found, int(own), ways) for own in keys])  # (count, K, 2): characters, quarter turns
    words = rng.subkeys(rng.subkeys(keys[:, None], np.arange(1, ways + 1))[:, :, None], np.arange(pictures))
    own = words.argsort(axis=2, kind="stable")[:, :, :each]  # (count, K, each): the pictures of each class
    rows = (drawn[:, :, 0, None] * pictures + own) * TURNED + drawn[:, :, 1, None]
    return np.asarray(rows.transpose(0, 2, 1).reshape(-1).astype(np.int64))


def _classes(found: Characters, key: int, ways: int) -> np.ndarray:
    """(K, 2) the characters of one episode, and by how many quarters of a turn each is turned."""
    group, turns = found.groups[rng.sample(rng.key(key, "group"), len(found.groups), 1)[0]], TURNED * found.turned or 1
    if found.together:
        chosen = group[rng.sample(rng.key(key, "classes"), len(group), ways)]
        quarter = np.full(ways, rng.sample(rng.key(key, "turn"), turns, 1)[0])
    else:
        drawn = np.array(rng.sample(rng.key(key, "classes"), len(group) * turns, ways))
        chosen, quarter = group[drawn // turns], drawn % turns
    return np.stack([chosen, quarter], 1)
