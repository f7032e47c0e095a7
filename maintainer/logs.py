"""What other people's loggers must not say."""

import logging

_LOUD = {
    # The whole URL of each request, at INFO: the query of a signed URL is a secret.
    "httpx": logging.WARNING,
    # The headers of each answer, at DEBUG: a redirect's Location is a signed URL too.
    "httpcore": logging.WARNING,
    # Each retry, at WARNING: the store logs it itself, with what it was about.
    "stamina": logging.ERROR,
}


def keep_secrets_out_of_logs() -> None:
    """Silence the loggers that would write signed URLs, at whatever level ours are."""
    for name, level in _LOUD.items():
        logging.getLogger(name).setLevel(level)
