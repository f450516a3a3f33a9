"""Weights files taken apart, put together again, and spoilt in every way that comes to mind."""

import json
import struct

import pytest

from volrecon.errors import WeightsError
from volrecon.priors import load_prior

ABSURD = [
    {"kind": "unet", "channels": [1_000_000], "blocks": 8},
    {"kind": "unet", "channels": [1_000_000] * 6, "blocks": 8},
    {"kind": "unet", "channels": [20_000, 20_000], "blocks": 2},
]
"""Networks that no machine holds."""


def taken_apart(path) -> tuple[dict, bytes]:
    """Header and body of a safetensors file."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def packed(header: dict | bytes, body: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def refused(path, match: str = ".", **arguments) -> str:
    with pytest.raises(WeightsError, match=match) as caught:
        load_prior(path, **arguments)
    assert caught.value.exit_code == 3
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 3000
    return str(caught.value)


def overlapping(header, body):
    keys = sorted(set(header) - {"__metadata__"}, key=lambda key: header[key]["data_offsets"])
    for key in keys[1:]:
        if header[key]["shape"] == header[keys[0]]["shape"]:
            header[key]["data_offsets"] = header[keys[0]]["data_offsets"]
    return packed(header, body)


def hole(header, body):
    last = max(set(header) - {"__metadata__"}, key=lambda key: header[key]["data_offsets"])
    header[last]["data_offsets"] = [offset + 8 for offset in header[last]["data_offsets"]]
    return packed(header, body + bytes(8))


def negative(header, body):
    header["leave.bias"]["shape"] = [-3]
    return packed(header, body)


def beyond(header, body):
    header["leave.bias"]["data_offsets"][1] += 10**15
    return packed(header, body)


def twice(header, body):
    """The first tensor's key once more, at the top of the header."""
    text = json.dumps(header)
    key = next(key for key in header if key != "__metadata__")
    return packed(("{" + f"{json.dumps(key)}: {json.dumps(header[key])}, " + text[1:]).encode(), body)


def twice_escaped(header, body):
    """The same key spelt with an escape."""
    return packed(json.dumps(header).replace("{", '{"le\\u0061ve.bias": {}, ', 1).encode(), body)


def two_cards(header, body):
    text = json.dumps(header)
    card = json.dumps(header["__metadata__"]["volrecon"])
    return packed(text.replace('"volrecon":', f'"volrecon": {card}, "volrecon":', 1).encode(), body)


def two_metadata(header, body):
    return packed(b'{"__metadata__": {}, ' + json.dumps(header).encode()[1:], body)


def key_twice_in_the_card(header, body):
    card = header["__metadata__"]["volrecon"]
    header["__metadata__"]["volrecon"] = '{"name": "other", ' + card[1:]
    return packed(header, body)


def terabyte_header(header, body):
    return struct.pack("<Q", 10**12) + json.dumps(header).encode() + body


def endless_header(header, body):
    return b"\xff" * 8 + json.dumps(header).encode() + body


def long_header(header, body):
    return packed(json.dumps(header).encode() + b" " * 2**21, body)


def nested_header(header, body):
    return packed(b"[" * 500_000, body)


def numerous_header(header, body):
    return packed(b"[" + b"{}," * 300_000 + b"{}]", body)


def list_header(header, body):
    return packed(b"[1, 2]", body)


def tensor_that_is_text(header, body):
    header["leave.bias"] = "F16"
    return packed(header, body)


def dtype_that_is_a_table(header, body):
    header["leave.bias"] |= {"dtype": {}, "shape": {"a": [3]}}
    return packed(header, body)


def no_metadata(header, body):
    del header["__metadata__"]
    return packed(header, body)


def metadata_of_numbers(header, body):
    header["__metadata__"] = {"volrecon": 1, "sha256": 2}
    return packed(header, body)


def card_of_many_keys(header, body):
    header["__metadata__"]["volrecon"] = json.dumps({"card_version": 1} | {f"{k:x}": 1 for k in range(2**15)})
    return packed(header, body)


def card_of_errors(header, body):
    header["__metadata__"]["volrecon"] = json.dumps({"card_version": 1, "gaps": ["a"] * 20_000})
    return packed(header, body)


def card_of_many_errors(header, body):
    gaps = '{"card_version": 1, "gaps": [' + ",".join(['"a"'] * 150_000) + "]}"
    header["__metadata__"]["volrecon"] = gaps
    return packed(header, body)


def card_of_huge_numbers(header, body):
    card = header["__metadata__"]["volrecon"]
    header["__metadata__"]["volrecon"] = card.replace('"centre":0.4', f'"centre":{"9" * 400}')
    return packed(header, body)


def card_that_is_text(header, body):
    header["__metadata__"]["volrecon"] = '"card"'
    return packed(header, body)


def card_cut_short(header, body):
    header["__metadata__"]["volrecon"] = header["__metadata__"]["volrecon"][:-3]
    return packed(header, body)


def not_unicode(header, body):
    return packed(json.dumps(header).encode().replace(b"tiny", b"\xff\xfe\xfd\xfc"), body)


def lone_surrogate(header, body):
    header["__metadata__"]["volrecon"] = header["__metadata__"]["volrecon"].replace("tiny", "\\ud800")
    return packed(header, body)


def another_seal(header, body):
    header["__metadata__"]["sha256"] = "0" * 64
    return packed(header, body)


def another_card(header, body):
    """Every fact of the card is under the seal."""
    card = header["__metadata__"]["volrecon"]
    header["__metadata__"]["volrecon"] = card.replace('"centre":0.4', '"centre":0.41')
    assert header["__metadata__"]["volrecon"] != card
    return packed(header, body)


DAMAGE = [
    overlapping,
    hole,
    negative,
    beyond,
    twice,
    twice_escaped,
    two_cards,
    two_metadata,
    key_twice_in_the_card,
    terabyte_header,
    endless_header,
    long_header,
    nested_header,
    numerous_header,
    list_header,
    tensor_that_is_text,
    dtype_that_is_a_table,
    no_metadata,
    metadata_of_numbers,
    card_of_many_keys,
    card_of_errors,
    card_of_many_errors,
    card_of_huge_numbers,
    card_that_is_text,
    card_cut_short,
    not_unicode,
    lone_surrogate,
    another_seal,
    another_card,
]
