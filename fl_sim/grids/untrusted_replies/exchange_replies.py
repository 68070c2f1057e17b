"""What every reply must be, of a virtual client or of a real device, compared with what the server expects of it."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from flwr.app import ArrayRecord, Message, MetricRecord

from fl_sim.grids.untrusted_replies.claims import finite, shortened, weight_problem
from fl_sim.wire import array_bytes, records
from fl_sim.wire.payload import RECORD
from fl_sim.wire.reply_form import Likes, NumbersForm
from fl_sim.wire.set_records import SETS, from_record, record_problem

MOST_CHARS = 10_000
"""The characters of a reason that are kept."""
POOL = "pool"
"""Name of the record in which a grid passes on the partial pool of a block."""


@dataclass(frozen=True)
class Expected:
    """What the server expects of the replies of one exchange, whatever they declare themselves."""

    weight_key: str = "num-examples"
    """The metric that weights a reply."""
    max_examples: float = math.inf
    """The largest weight."""
    required: Sequence[str] = ()
    """Numbers that each reply must report, one number each."""
    enter_model: Collection[str] = ()
    """Numbers besides the weight from which the strategy computes the model: they must be finite."""
    not_finite: Literal["failure", "null", "left out"] = "failure"
    """What a number that is NaN or infinite means: a failure; null in the log; or that the reply is not used."""
    zero_is_failure: bool = True
    """Whether a weight of 0 is a failure; else the reply counts nothing."""
    passes_zero: bool = False
    """Whether a reply that counts nothing is passed on, because its receiver does not average by the weight."""
    any_arrays: bool = False
    """Whether arrays are passed on unread, because they do not enter the model."""
    own_facts: bool = True
    """Whether a record named ``facts`` is the grid's own; else it is the app's, whatever it holds."""
    one_model: bool = False
    """Whether each reply must hold exactly one ArrayRecord."""
    combined: bool = False
    """Whether a pool or an average combines the arrays."""
    own_model: bool = False
    """Whether arrays must look like the run's own model, bytes included."""
    payload: Collection[str] = ()
    """The names of the records of arrays that each reply must have beside its model; read where ``own_model`` is."""
    own_pools: bool = False
    """Whether the grid itself made the records named ``pool``, from replies that it has checked."""
    numbers_form: NumbersForm | None = None
    """The names of records and numbers that replies must have in common; None: any."""


class Report(NamedTuple):
    """A reply's records, looked up once."""

    arrays: dict[str, ArrayRecord]
    numbers: dict[str, Any]
    facts: Mapping[str, Any]
    sets: dict[str, object]
    """Set metrics, as they are logged."""
    not_finite: list[str]
    """The names of numbers that are NaN or infinite, or too large for a float."""
    problem: str
    """Why the records must not be used, or ""."""

    def num_bytes(self, own: bool) -> int:
        """Bytes of the model; ``own``: as the grid counted them before it pooled the replies, where it says so."""
        size = self.facts.get("num-bytes") if own else None
        if isinstance(size, int):
            return size
        return sum(
            x.nbytes
            for n, record in self.arrays.items()
            if not own or n != POOL
            for x in array_bytes.values_of(record, opaque=True).values()
        )


def read(reply: Message, own_facts: bool = True) -> Report | None:
    """A reply's records; None for a reply without content. ``own_facts`` : as in ``Expected``."""
    if not reply.has_content():
        return None
    arrays: dict[str, ArrayRecord] = {}
    numbers: dict[str, Any] = {}
    facts: Mapping[str, object] = {}
    sets: dict[str, object] = {}
    broken = ""
    for name, record in reply.content.items():
        if isinstance(record, MetricRecord):
            numbers.update(record.items())
        elif isinstance(record, ArrayRecord):
            arrays[name] = record
        elif not own_facts:
            continue
        elif name == "facts":
            facts = dict(record.items())
        elif name == SETS:
            broken = record_problem(record)
            sets = {} if broken else from_record(record)
    try:
        bad = _not_finite(numbers, math.isfinite)
    except OverflowError:  # an integer that is too large for a float
        bad = _not_finite(numbers, finite)
    return Report(arrays, numbers, facts, sets, bad, broken)


def _not_finite(numbers: Mapping[str, Any], finite: Callable[[float], bool]) -> list[str]:
    return [k for k, v in numbers.items() if not (all(map(finite, v)) if isinstance(v, list) else finite(v))]


def readable(reply: Message) -> bool:
    """Whether all arrays of a reply can be opened; an error reply has none."""
    try:
        for record in records.of(reply.content, ArrayRecord).values() if reply.has_content() else ():
            array_bytes.values_of(record)
    except ValueError:
        return False
    return True


def problem(message: Message, reply: Message, report: Report | None, likes: Likes, expected: Expected) -> str:
    """Why a reply to ``message`` must not be used, or "".

    Arrays have the names, shapes and dtypes that ``likes`` says, and are finite; numbers are finite where they enter
    the model; the weight is finite, not negative and not above ``max_examples``.
    """
    if report is None:
        return error_text(reply)
    found = (
        report.problem or _arrays_problem(message, reply, report, likes, expected) or _numbers_problem(report, expected)
    )
    return found if expected.numbers_form is None else found or expected.numbers_form.problem(reply)


def error_text(reply: Message) -> str:
    """The reason of an error reply, cut to ``MOST_CHARS``."""
    if not reply.has_error():
        return "a reply with neither content nor an error"
    return str(reply.error.reason or f"error code {reply.error.code}")[:MOST_CHARS]


def put_in_order(message: Message, reply: Message, likes: Likes) -> None:
    """Put the arrays of a good reply into the order of those that were sent.

    Some of Flower's strategies pair arrays by their place, so that another order would swap layers of one shape.
    """
    for name, like in likes(message, reply).items():
        record = reply.content.array_records[name]
        if list(record) != list(like):
            reply.content[name] = ArrayRecord({k: record[k] for k in like})


def zero_weight(report: Report | None, key: str = "num-examples") -> bool:
    """Whether a good reply counts nothing, because its weight is 0."""
    return report is not None and (report.numbers.get(key, 1) == 0 or report.facts.get("weight", 1) == 0)


def _arrays_problem(message: Message, reply: Message, report: Report, likes: Likes, expected: Expected) -> str:
    """Why the arrays of a reply must not be used, or ""; what a grid has pooled was checked before."""
    if not report.arrays and not expected.one_model:
        return ""
    arrays = {k: v for k, v in report.arrays.items() if not (expected.own_pools and k == POOL)}
    if expected.own_model and POOL in arrays:
        return f"a record of arrays named {POOL!r}, which only a grid makes"
    beside = {k for k in arrays if k.startswith(RECORD)} if expected.own_model else set()
    if expected.one_model and len(arrays) - len(beside) != 1:
        return f"{len(arrays) - len(beside)} records of arrays; a reply must have one"
    if beside != set(expected.payload) and (arrays or expected.one_model) and expected.own_model:
        return f"the payload {shortened(sorted(beside))}; a reply must have {sorted(expected.payload)}"
    if not arrays or expected.any_arrays:
        return ""
    try:
        opaque = not (expected.combined or expected.own_model)
        values = {name: array_bytes.values_of(record, opaque) for name, record in arrays.items()}
    except ValueError as error:
        return str(error)
    like = likes(message, reply)
    for name, found in values.items():
        form = array_bytes.form_problem(found, like[name], (), not expected.own_model) if name in like else ""
        if why := form or array_bytes.size_problem(found, expected.combined):
            return why
    return ""


def _numbers_problem(report: Report, expected: Expected) -> str:
    """Why the numbers of a reply must not be used, or ""."""
    numbers, key = report.numbers, expected.weight_key
    for name in report.not_finite:
        if expected.not_finite == "failure" or name == key or name in expected.enter_model:
            return f"{name} is {shortened(numbers[name])}"
    for name in expected.required:
        if not isinstance(numbers.get(name), (int, float)):
            return f"{name} = {shortened(numbers.get(name))}: each reply must report this number"
    if expected.passes_zero:
        return ""
    return weight_problem(numbers, key, expected.max_examples, expected.zero_is_failure)
