"""The classes of errors (SPEC.md 2.10), as far as a reader meets them."""


class Refused(Exception):
    """Something that the reader must not use. kind is the class's name."""

    kind = "refused"

    def __str__(self):
        return f"{self.kind}: {super().__str__()}"


class Malformed(Refused):
    """Bytes are not of the form the specification gives them."""

    kind = "malformed"


class Unopened(Refused):
    """An object was altered, or sealed with another key or for another vault."""

    kind = "open"


class WrongContent(Refused):
    """An authentic object is not the one that the record or list describes."""

    kind = "content"


class NoKey(Refused):
    """The key of the object's epoch is not known."""

    kind = "no key"


class Missing(Refused):
    """The object is not in the store."""

    kind = "missing"


class Critical(Refused):
    """A newer version wrote the record, and it must not be read without that."""

    kind = "critical"


class Untrusted(Refused):
    """A member entry, commit or stamp does not verify."""

    kind = "history"
