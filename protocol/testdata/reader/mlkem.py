"""ML-KEM-768 (FIPS 203): keys from a seed, encapsulation, decapsulation.

Names are those of the standard. Nothing here runs in constant time: it is for one
person with their own phrase on their own machine, not for a service.
"""

import hashlib

Q, N, K = 3329, 256, 3
DU, DV = 10, 4
EK_SIZE, CIPHERTEXT_SIZE = 384 * K + 32, 32 * (DU * K + DV)


def _bit_reversed(i):
    return int(f"{i:07b}"[::-1], 2)


_ZETAS = [pow(17, _bit_reversed(i), Q) for i in range(128)]
_GAMMAS = [pow(17, 2 * _bit_reversed(i) + 1, Q) for i in range(128)]


def _g(data):
    h = hashlib.sha3_512(data).digest()
    return h[:32], h[32:]


def _h(data):
    return hashlib.sha3_256(data).digest()


def _encode(f, d):
    """ByteEncode_d: 256 numbers of d bits, the least significant bits first."""
    return sum(c << (d * i) for i, c in enumerate(f)).to_bytes(32 * d, "little")


def _decode(data, d):
    bits = int.from_bytes(data, "little")
    return [bits >> (d * i) & ((1 << d) - 1) for i in range(N)]


def _compress(f, d):
    return [((c << d) + Q // 2) // Q & ((1 << d) - 1) for c in f]


def _decompress(f, d):
    return [(c * Q + (1 << (d - 1))) >> d for c in f]


def _sample_ntt(seed):
    size = 840  # enough but for one seed in a great many; then more
    while True:
        stream, out = hashlib.shake_128(seed).digest(size), []
        for a, b, c in zip(stream[0::3], stream[1::3], stream[2::3]):
            out += [d for d in (a | (b & 15) << 8, b >> 4 | c << 4) if d < Q]
        if len(out) >= N:
            return out[:N]
        size *= 2


def _sample_cbd(seed, nonce):
    """SamplePolyCBD with eta = 2 of PRF(seed, nonce)."""
    nibbles = _decode(hashlib.shake_256(seed + bytes([nonce])).digest(128), 4)
    return [((x & 1) + (x >> 1 & 1) - (x >> 2 & 1) - (x >> 3)) % Q for x in nibbles]


def _ntt(f):
    f, i, length = list(f), 1, 128
    while length >= 2:
        for start in range(0, N, 2 * length):
            zeta, i = _ZETAS[i], i + 1
            for j in range(start, start + length):
                t = zeta * f[j + length]
                f[j + length], f[j] = (f[j] - t) % Q, (f[j] + t) % Q
        length //= 2
    return f


def _inverse_ntt(f):
    f, i, length = list(f), 127, 2
    while length <= 128:
        for start in range(0, N, 2 * length):
            zeta, i = _ZETAS[i], i - 1
            for j in range(start, start + length):
                t = f[j]
                f[j], f[j + length] = (t + f[j + length]) % Q, zeta * (f[j + length] - t) % Q
        length *= 2
    return [c * 3303 % Q for c in f]


def _add(*polynomials):
    return [sum(c) % Q for c in zip(*polynomials)]


def _dot(a, b):
    """The sum of the products of two vectors of polynomials in NTT form."""
    out = [0] * N
    for f, g in zip(a, b):
        for i, gamma in enumerate(_GAMMAS):
            a0, a1, b0, b1 = f[2 * i], f[2 * i + 1], g[2 * i], g[2 * i + 1]
            out[2 * i] += a0 * b0 + a1 * b1 * gamma
            out[2 * i + 1] += a0 * b1 + a1 * b0
    return [c % Q for c in out]


def _matrix(rho):
    return [[_sample_ntt(rho + bytes([j, i])) for j in range(K)] for i in range(K)]


def keys(seed):
    """ML-KEM.KeyGen_internal of seed = d ‖ z: the encapsulation key's bytes, and
    the secret that decapsulate takes."""
    rho, sigma = _g(seed[:32] + bytes([K]))
    s = [_ntt(_sample_cbd(sigma, n)) for n in range(K)]
    e = [_ntt(_sample_cbd(sigma, K + n)) for n in range(K)]
    t = [_add(_dot(row, s), e[i]) for i, row in enumerate(_matrix(rho))]
    ek = b"".join(_encode(f, 12) for f in t) + rho
    return ek, (s, ek, seed[32:])


def _encrypt(ek, message, r):
    """K-PKE.Encrypt."""
    t = [_decode(ek[384 * i : 384 * (i + 1)], 12) for i in range(K)]
    y = [_ntt(_sample_cbd(r, n)) for n in range(K)]
    columns = zip(*_matrix(ek[384 * K :]))
    u = [_add(_inverse_ntt(_dot(col, y)), _sample_cbd(r, K + i)) for i, col in enumerate(columns)]
    v = _add(_inverse_ntt(_dot(t, y)), _sample_cbd(r, 2 * K), _decompress(_decode(message, 1), 1))
    return b"".join(_encode(_compress(f, DU), DU) for f in u) + _encode(_compress(v, DV), DV)


def encapsulate(ek, message):
    """ML-KEM.Encaps_internal: ciphertext and shared secret for 32 random bytes.
    ValueError if ek is none: the modulus check of section 7.2."""
    if any(c >= Q for i in range(K) for c in _decode(ek[384 * i : 384 * (i + 1)], 12)):
        raise ValueError("not an encapsulation key")
    shared, r = _g(message + _h(ek))
    return _encrypt(ek, message, r), shared


def decapsulate(secret, ciphertext):
    """ML-KEM.Decaps_internal. A ciphertext that was altered gives another secret,
    not an error."""
    s, ek, z = secret
    if len(ciphertext) != CIPHERTEXT_SIZE:
        raise ValueError(f"ciphertext of {len(ciphertext)} bytes")
    size = 32 * DU
    u = [_ntt(_decompress(_decode(ciphertext[size * i : size * (i + 1)], DU), DU)) for i in range(K)]
    v = _decompress(_decode(ciphertext[size * K :], DV), DV)
    noisy = [(a - b) % Q for a, b in zip(v, _inverse_ntt(_dot(s, u)))]
    message = _encode(_compress(noisy, 1), 1)
    shared, r = _g(message + _h(ek))
    if _encrypt(ek, message, r) == ciphertext:
        return shared
    return hashlib.shake_256(z + ciphertext).digest(32)
