"""A state is read with the bits, dtypes, order and layout that it had, or not at all."""

import pytest
import torch

from fl_sim.states import state_record
from fl_sim.states.state_record import ALIGN, Malformed, decode
from fl_sim.tree import Tree

STATE: Tree = {
    "last": torch.arange(120.0).reshape(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "a": torch.tensor(-0.0),
    "none": torch.zeros(0, 3),
    "complex": torch.tensor([1 + 2j, 3j], dtype=torch.complex128).conj(),
    "flags": torch.tensor([True, False]),
    "half": torch.arange(6).bfloat16().reshape(2, 3).t(),
    "same": torch.ones(1).expand(7),
    "every second": torch.arange(10)[::2],
    "nan": torch.tensor([torch.nan, torch.inf], requires_grad=True),
}


def encode(client: int, state: Tree) -> tuple[bytes, int]:
    """(the record, its CRC-32)."""
    buffers, length, crc = state_record.encode(client, state)
    record = b"".join(buffers)
    assert len(record) == length
    return record, crc


def test_a_state_is_read_as_it_was() -> None:
    record, crc = encode(-3, STATE)
    found = decode(-3, memoryview(bytearray(record)), crc)
    assert list(found) == list(STATE) and len(record) % ALIGN == 0
    for name, x in STATE.items():
        y = found[name]
        assert (y.dtype, y.shape, y.requires_grad) == (x.dtype, x.shape, False)
        assert torch.equal(torch.view_as_real(y) if y.is_complex() else y, x) or name in ("nan", "complex")
    assert torch.equal(found["complex"], STATE["complex"]) and bool(found["nan"].isnan()[0])
    assert found["last"].stride() == STATE["last"].stride() and found["half"].stride() == STATE["half"].stride()
    assert torch.signbit(found["a"])
    found["last"].zero_()


def test_every_changed_byte_another_client_and_another_end_are_seen() -> None:
    record, crc = encode(5, {"x": torch.arange(3.0)})
    for place in range(len(record)):
        bad = bytearray(record)
        bad[place] ^= 16
        with pytest.raises(Malformed):
            decode(5, memoryview(bad), crc)
    for client, data, other in ((6, record, crc), (5, record[:-ALIGN], crc), (5, b"", crc), (5, record, crc + 1)):
        with pytest.raises(Malformed):
            decode(client, memoryview(bytearray(data)), other)


@pytest.mark.parametrize(
    "form",
    [
        '[["x","float32",[1000],null,"cpu",0]]',
        '[["x","float32",[-1],null,"cpu",0]]',
        '[["x","float32",[2],[9],"cpu",0]]',
        '[["x","Tensor",[1],null,"cpu",0]]',
        '[["x","float32",[1],null,"disk",0]]',
        '[["x","float32",[1],null,"cpu",4096]]',
        "[[1]]",
        "[" * 5000,
        "",
    ],
)
def test_a_stranger_cannot_name_a_form_that_no_state_has(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("fl_sim.states.state_record.json.dumps", lambda *a, **k: form)
        record, crc = encode(1, {"x": torch.zeros(4)})
    with pytest.raises(Malformed):
        decode(1, memoryview(bytearray(record)), crc)
