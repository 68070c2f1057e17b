"""Replies of real devices in a codec's form: checked against what the server would send itself, then decoded."""

from collections.abc import Callable

from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from fl_sim import tree
from fl_sim.blocks.learner import Learner, Settings
from fl_sim.engines.coding import names_of, shared_key
from fl_sim.engines.malicious import attacked
from fl_sim.tree import Tree
from fl_sim.wire import array_bytes, codec, payload, records

Decoder = Callable[[RecordDict, Settings, Tree], tuple[RecordDict, str]]
"""(content of a reply to a message for training, settings of the message, form of a whole reply with the values of the
model that was sent) -> (the content with whole arrays, why it must not be used or "")."""


def not_coded(content: RecordDict, settings: Settings, form: Tree) -> tuple[RecordDict, str]:
    """The decoder of a grid that knows of no codec."""
    return content, "a code, which the server did not ask for" if codec.RECORD in content else ""


def decoder_of(learner: Learner) -> Decoder:
    """The decoder of a run: ``learner`` has the coding and the rules that its devices have."""

    def decoded(content: RecordDict, settings: Settings, form: Tree) -> tuple[RecordDict, str]:
        coding = learner.coding(settings)
        if coding is None:
            return not_coded(content, settings, form)
        rule = learner.rule("train", settings)
        parts = coding.parts(names_of(rule, form, learner.loss), form)
        coded = {k for part in parts.values() for k in part}
        sent = content.get(codec.RECORD)
        if not isinstance(sent, ArrayRecord):
            return content, f"a reply without the record {codec.RECORD!r}, which the server asked for"
        others = payload.records_of(RecordDict({k: v for k, v in content.items() if k != codec.RECORD}))
        try:
            array_bytes.values_of(sent)
            code, whole = records.decode(sent), payload.decode(others)
        except (ValueError, TypeError) as error:
            return content, str(error)
        if twice := sorted(coded & set(whole)):
            return content, f"{twice[0]} both coded and whole"
        key = shared_key(int(settings.get("seed", 0)), int(settings.get("server-round", 0)))
        updates, why = coding.read(code, parts, key)
        if not why and not bool(tree.finite(updates)):  # finite numbers whose product is not
            why = "a code with NaN or infinity in the update that it stands for"
        if why:
            return content, why
        zeros = {k: form[k] for k in coded}
        model = attacked(zeros, form, rule, {k: x for k, x in updates.items() if payload.BETWEEN not in k})
        every = {**whole, **model, **{k: x for k, x in updates.items() if payload.BETWEEN in k}}
        every = {k: every[k] for k in dict.fromkeys([*form, *every]) if k in every}
        facts = ConfigRecord({**content.config_records["facts"], "num-bytes-raw": tree.num_bytes(every)})
        rest = {k: v for k, v in content.items() if not isinstance(v, ArrayRecord)}
        return RecordDict({**rest, "facts": facts, **payload.encode(every)}), ""

    return decoded
