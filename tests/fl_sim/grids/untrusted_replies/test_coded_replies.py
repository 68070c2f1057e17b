"""Hostile codes at the server's door: each is refused with its reason before it is decoded; a good one is read."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from torch import Tensor, nn

from clients.app import make_app
from clients.rules import coding_for
from fl_sim import Partition, from_arrays, tree
from fl_sim.engines.coding import names_of, shared_key
from fl_sim.grids.untrusted_replies.coded_replies import decoder_of, not_coded
from fl_sim.learning.loss import Loss
from fl_sim.tree import Tree
from fl_sim.wire import payload, records
from fl_sim.wire.codec import Keys
from strategies.codecs._indices import packed

Tamper = Callable[[RecordDict], None]
SETTINGS: dict[str, Any] = {"seed": 3, "server-round": 5, "rounds": 9, "strategy": "scaffold"}
LOSS = Loss(nn.Linear(12, 6), from_arrays(np.zeros((4, 12), np.float32), np.arange(4) % 6, x_test=None, y_test=None))
LEARNER = make_app(LOSS, Partition.of([np.arange(4)])).learner
MODEL = LOSS.initial()
FORM = payload.join(MODEL, {"control": tree.zeros(MODEL)})


def ramp(x: Tensor) -> Tensor:
    return torch.linspace(-1, 1, x.numel()).reshape(x.shape)


def reply(codec: str, **more: Any) -> tuple[RecordDict, dict[str, Any], Tree]:
    """(an honest reply, the settings of its message, the whole reply that it stands for)."""
    settings = {**SETTINGS, "codec": codec, **more}
    coding, rule = coding_for(settings), LEARNER.rule("train", settings)
    assert coding is not None
    parts = coding.parts(names_of(rule, FORM, LOSS), FORM)
    updates = {name: {k: ramp(x) for k, x in part.items()} for name, part in parts.items()}
    sent = coding.send(updates, {}, Keys(shared_key(3, 5), 9), with_code=True)
    coded = {k for part in parts.values() for k in part}
    others = payload.encode({k: x for k, x in FORM.items() if k not in coded})
    facts = ConfigRecord({"num-bytes": 1, "weight": 4.0})
    numbers = MetricRecord({"steps": 1})
    content = RecordDict({"code": records.encode(sent.code), "facts": facts, "metrics": numbers, **others})
    model = {k: FORM[k] + x for k, x in sent.reply.items() if k in MODEL}
    return content, settings, {**FORM, **model, **{k: x for k, x in sent.reply.items() if k not in MODEL}}


@pytest.mark.parametrize("codec", ["topk", "int8", "fp16", "grouped", "powersgd", "none"])
@pytest.mark.parametrize("trees", ["", "control"])
def test_an_honest_code_is_read(codec: str, trees: str) -> None:
    if codec == "none":
        content = RecordDict({**payload.encode(FORM), "facts": ConfigRecord({})})
        assert decoder_of(LEARNER)(content, SETTINGS, FORM) == (content, "")
        return
    content, settings, meant = reply(codec, **({"codec.trees": trees} if trees else {}))
    read, why = decoder_of(LEARNER)(content, settings, FORM)
    assert why == "" and tree.digest(payload.decode(payload.records_of(read))) == tree.digest(meant)
    assert read.config_records["facts"]["num-bytes-raw"] == tree.num_bytes(FORM)


def array(name: str, x: np.ndarray | None) -> Tamper:
    """Replace a tensor of the code."""

    def tamper(content: RecordDict) -> None:
        if x is None:
            del content["code"][name]
        else:
            content["code"][name] = Array(x)

    return tamper


def dropped(name: str) -> Tamper:
    def tamper(content: RecordDict) -> None:
        del content[name]

    return tamper


def also_whole(content: RecordDict) -> None:
    content["arrays"] = records.encode({"weight": torch.zeros(6, 12)})


def huge(content: RecordDict) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }\n"
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    content["code"]["|values"] = Array("float32", (2**40,), "numpy.ndarray", data)


F, INDEX = np.float32, packed(np.array([7]), 78)  # one of 78 coordinates is sent
BAD: dict[str, tuple[str, Tamper, str]] = {
    "no code": ("topk", dropped("code"), "a reply without the record 'code', which the server asked for"),
    "no values": ("topk", array("|values", None), r"a code with indices; it must have indices, values"),
    "another name": ("topk", array("|more", np.ones(1, F)), r"a code with .*more.*; it must have"),
    "no part": ("topk", array("more", np.ones(1, F)), "a code of 3 tensors, of which 2 are known"),
    "another dtype": (
        "topk",
        array("|values", np.ones(1)),
        r"values is \(1,\) torch.float64, must be \(1,\) torch.float32",
    ),
    "more values": ("topk", array("|values", np.ones(2, F)), r"values is \(2,\) torch.float32, must be \(1,\)"),
    "NaN": ("topk", array("|values", np.full(1, np.nan, F)), "NaN or infinity in values"),
    "4 TB": ("topk", huge, "bytes|shape|size"),
    "fewer bytes": ("topk", array("|indices", INDEX[:-1]), r"indices is \(\d+,\) torch.uint8, must be"),
    "no index": ("topk", array("|indices", np.zeros_like(INDEX)), "no 1 ascending indices below 78"),
    "all indices": ("topk", array("|indices", np.full_like(INDEX, 255)), "no 1 ascending indices below 78"),
    "words": ("topk", array("|values", np.array(["a"])), "can't convert np.ndarray of type numpy.str_"),
    "-128": ("int8", array("|bias", np.full(6, -128, np.int8)), "-128 in bias"),
    "a scale below zero": ("int8", array("|#scales", np.array([-1, 1], F)), "a scale below zero"),
    "a scale of NaN": ("int8", array("|#scales", np.array([np.nan, 1], F)), "NaN or infinity in #scales"),
    "an exponent": ("fp16", array("|#exponents", np.array([1075, 0], np.int16)), "the exponent 1075, above 1074"),
    "means": ("grouped", array("|means", np.ones(5, F)), r"means is \(5,\) torch.float32, must be \(20,\)"),
    "P of another rank": (
        "powersgd",
        array("|weight#p", np.ones((6, 3), F)),
        r"weight#p is \(6, 3\) .*must be \(6, 2\)",
    ),
    "too large together": ("powersgd", array("|weight#p", np.full((6, 2), 3e38, F)), "NaN or infinity in the update"),
    "too large a power": ("fp16", array("|#exponents", np.array([1000, 0], np.int16)), "NaN or infinity in the update"),
    "both coded and whole": ("topk", also_whole, "weight both coded and whole"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_hostile_code_is_refused(kind: str) -> None:
    codec, tamper, why = BAD[kind]
    content, settings, _ = reply(codec)
    tamper(content)
    same, found = decoder_of(LEARNER)(content, settings, FORM)
    assert same is content
    assert re.search(why, found), found


def test_a_code_that_nobody_asked_for_is_refused() -> None:
    content, _, _ = reply("topk")
    for decoder in (decoder_of(LEARNER), not_coded):
        assert decoder(content, SETTINGS, FORM) == (content, "a code, which the server did not ask for")


def test_a_tree_that_is_missing_is_seen_by_the_checks_that_follow() -> None:
    """What is sent whole is not this door's: a reply without it lacks leaves, as one without a codec would."""
    content, settings, _ = reply("topk")
    del content["payload.control"]
    read, why = decoder_of(LEARNER)(content, settings, FORM)
    assert why == "" and "payload.control" not in read and set(payload.decode(payload.records_of(read))) == set(MODEL)


def test_no_code_may_be_a_list_of_numbers() -> None:
    content, settings, _ = reply("topk")
    bad = RecordDict({**content, "code": ConfigRecord({"values": [1.0]})})
    assert (
        decoder_of(LEARNER)(bad, settings, FORM)[1] == "a reply without the record 'code', which the server asked for"
    )
    empty = RecordDict({**content, "code": ArrayRecord({})})
    assert "a code with nothing; it must have indices, values" in decoder_of(LEARNER)(empty, settings, FORM)[1]
