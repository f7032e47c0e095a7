"""What the runtime token says it may do.

It is a JWT whose claim `ac` is a JSON string of `[{"Scope": REF, "Permission": bits}]`. The service
checks it; here it is only read.
"""

from datetime import UTC, datetime
from typing import Annotated

import jwt
import msgspec

from maintainer.cacheconfig import Ref
from maintainer.decoding import decode_json
from maintainer.errors import UsageError
from maintainer.model.entry import Access
from maintainer.sanitize import NUL
from maintainer.stores.github.keyed import MAX_NAME_LENGTH

_READ, _WRITE = 1, 2


class _Grant(msgspec.Struct):
    scope: Annotated[str, msgspec.Meta(max_length=MAX_NAME_LENGTH)] = msgspec.field(name="Scope")
    permission: Annotated[int, msgspec.Meta(ge=0)] = msgspec.field(name="Permission")


def read_access(token: str, variable: str = "ACTIONS_RUNTIME_TOKEN") -> Access:
    """Return the refs that `token`, which a variable holds, may read and write.

    Raises UsageError if it is not a runtime token; the message does not show it.
    """
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
        grants = decode_json(claims["ac"], list[_Grant])
    except (jwt.PyJWTError, msgspec.DecodeError, KeyError, TypeError, ValueError, RecursionError):
        raise UsageError(
            f"{variable} is not the runtime token of a workflow: it names no caches"
        ) from None
    # No ref of git contains NUL, and not every database can store it.
    grants = [grant for grant in grants if NUL not in grant.scope]
    # A token that may write a ref may read it too, even where only the write bit is set.
    return Access(
        readable=frozenset(Ref(g.scope) for g in grants if g.permission & (_READ | _WRITE)),
        writable=frozenset(Ref(g.scope) for g in grants if g.permission & _WRITE),
    )


def read_expiry(token: str) -> datetime | None:
    """Return when a runtime token expires; None if it does not say so."""
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
        return datetime.fromtimestamp(claims["exp"], UTC)
    except (jwt.PyJWTError, KeyError, TypeError, ValueError, OverflowError, OSError):
        return None
