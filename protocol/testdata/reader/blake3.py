"""BLAKE3, plain and keyed, with output of any length.

Written from the public specification. Pure Python would take ten seconds for a
chunk of 4 MiB if it compressed one block after the other, so many compressions
are done side by side: a big integer holds one 32-bit word of each of them, in
lanes of 64 bits. The sum of a few words cannot leave its lane, and what shifts
push out of a word is masked away.
"""

import struct

_IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
_PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
_COLUMNS = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15))
_DIAGONALS = ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
_CHUNK_START, _CHUNK_END, _PARENT, _ROOT, _KEYED = 1, 2, 4, 8, 16
_CHUNK, _BLOCK = 1024, 64


def _pack(words):
    """One lane for each word."""
    words = tuple(words)
    return int.from_bytes(struct.pack(f"<{len(words)}Q", *words), "little")


def _unpack(lanes, n):
    return struct.unpack(f"<{n}Q", lanes.to_bytes(8 * n, "little"))


def _compress(cv, block, counter, length, flags, n):
    """Compress n blocks side by side: 16 lanes, of which the first 8 are the
    chaining value. cv and block are 8 and 16 lanes; length and flags are alike
    for all."""
    ones = _pack([1] * n)
    mask = 0xFFFFFFFF * ones
    v = [*cv, *(w * ones for w in _IV[:4]), counter & mask, counter >> 32 & mask, length * ones, flags * ones]
    m = list(block)
    for _ in range(7):
        for i, (a, b, c, d) in enumerate(_COLUMNS + _DIAGONALS):
            for word, r1, r2 in ((m[2 * i], 16, 12), (m[2 * i + 1], 8, 7)):
                v[a] = (v[a] + v[b] + word) & mask
                x = v[d] ^ v[a]
                v[d] = (x >> r1 | x << (32 - r1)) & mask
                v[c] = (v[c] + v[d]) & mask
                x = v[b] ^ v[c]
                v[b] = (x >> r2 | x << (32 - r2)) & mask
        m = [m[p] for p in _PERMUTATION]
    return [v[i] ^ v[i + 8] for i in range(8)] + [v[i + 8] ^ cv[i] for i in range(8)]


def _words(block):
    return struct.unpack("<16I", block.ljust(_BLOCK, b"\0"))


def digest(data, key=None, size=32):
    """BLAKE3 of data; in keyed mode if a key of 32 bytes is given."""
    start = struct.unpack("<8I", key) if key is not None else _IV
    mode = _KEYED if key is not None else 0
    n = max(1, -(-len(data) // _CHUNK))
    values = [()] * 8  # the eight words of the chaining values, chunk after chunk
    if n > 1:  # all chunks but the last, which are whole
        words = struct.unpack(f"<{256 * (n - 1)}I", data[: _CHUNK * (n - 1)])
        ones, counter = _pack([1] * (n - 1)), _pack(range(n - 1))
        cv = [w * ones for w in start]
        for b in range(16):
            flags = mode | (_CHUNK_START if b == 0 else 0) | (_CHUNK_END if b == 15 else 0)
            block = [_pack(words[16 * b + i :: 256]) for i in range(16)]
            cv = _compress(cv, block, counter, _BLOCK, flags, n - 1)[:8]
        values = [_unpack(c, n - 1) for c in cv]
    tail = data[_CHUNK * (n - 1) :]
    blocks = [tail[i : i + _BLOCK] for i in range(0, len(tail), _BLOCK)] or [b""]
    cv, flags = start, mode | _CHUNK_START
    for block in blocks[:-1]:
        cv, flags = _compress(cv, _words(block), n - 1, _BLOCK, flags, 1)[:8], mode
    root = cv, _words(blocks[-1]), len(blocks[-1]), flags | _CHUNK_END
    if n > 1:
        last = _compress(*root[:2], n - 1, *root[2:], 1)
        values = [v + (w,) for v, w in zip(values, last)]
        # Parents of neighbours, level by level; one without a neighbour rises
        # as it is. That is the tree whose left sides are whole powers of two.
        while n > 2:
            pairs = n // 2
            ones = _pack([1] * pairs)
            block = [_pack(v[side : 2 * pairs : 2]) for side in (0, 1) for v in values]
            cv = _compress([w * ones for w in start], block, 0, _BLOCK, mode | _PARENT, pairs)
            values = [_unpack(c, pairs) + v[2 * pairs :] for c, v in zip(cv, values)]
            n -= pairs
        root = start, [v[side] for side in (0, 1) for v in values], _BLOCK, mode | _PARENT
    return _output(root, size)


def _output(root, size):
    """The root compressed again and again, with a counter, side by side."""
    cv, block, length, flags = root
    n = -(-size // _BLOCK)
    ones = _pack([1] * n)
    out = _compress([w * ones for w in cv], [w * ones for w in block], _pack(range(n)), length, flags | _ROOT, n)
    columns = [_unpack(word, n) for word in out]
    return b"".join(struct.pack("<16I", *words) for words in zip(*columns))[:size]
