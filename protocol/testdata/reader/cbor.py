"""Deterministic CBOR (SPEC.md 2.9): every value has one encoding, and everything
else is refused."""

from errors import Malformed

_MAX_DEPTH = 16


def decode(data):
    """The one value in data: int, bytes, str, list, dict with int keys, bool, None."""
    value, end = _value(data, 0, 0)
    if end != len(data):
        raise Malformed(f"CBOR: {len(data) - end} bytes after the value")
    return value


def _head(data, at):
    """Major type, argument."""
    if at >= len(data):
        raise Malformed("CBOR: cut short")
    major, info = data[at] >> 5, data[at] & 31
    at += 1
    if info < 24 or major == 7:
        return major, info, at
    if info > 27:
        raise Malformed("CBOR: indefinite or reserved length")
    size = 1 << (info - 24)
    number = int.from_bytes(data[at : at + size], "big")
    if at + size > len(data):
        raise Malformed("CBOR: cut short")
    if number < (24, 1 << 8, 1 << 16, 1 << 32)[info - 24]:
        raise Malformed("CBOR: a number is not in its shortest form")
    return major, number, at + size


def _value(data, at, depth):
    major, n, at = _head(data, at)
    if major == 0:
        return n, at
    if major == 1:
        return -1 - n, at
    if major in (2, 3):
        if n > len(data) - at:
            raise Malformed("CBOR: cut short")
        content = bytes(data[at : at + n])
        if major == 2:
            return content, at + n
        try:
            return content.decode(), at + n
        except UnicodeDecodeError:
            raise Malformed("CBOR: text is not UTF-8") from None
    if major in (4, 5):
        if depth == _MAX_DEPTH:
            raise Malformed("CBOR: nested too deep")
        return (_array if major == 4 else _map)(data, at, n, depth + 1)
    if major == 7 and n in (20, 21, 22):
        return (False, True, None)[n - 20], at
    raise Malformed("CBOR: a tag, a float or another simple value")


def _array(data, at, n, depth):
    out = []
    for _ in range(n):  # a false count ends with the data, having allocated nothing
        item, at = _value(data, at, depth)
        out.append(item)
    return out, at


def _map(data, at, n, depth):
    out, before = {}, b""
    for _ in range(n):
        start = at
        key, at = _value(data, at, depth)
        encoded = bytes(data[start:at])
        if type(key) is not int or not -(1 << 63) <= key < 1 << 63:
            raise Malformed("CBOR: a map key is not an integer of 64 bits with sign")
        if encoded <= before:
            raise Malformed("CBOR: map keys do not ascend")
        before = encoded
        out[key], at = _value(data, at, depth)
    return out, at
