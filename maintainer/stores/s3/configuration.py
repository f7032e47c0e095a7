"""What is wrong with the configuration of the AWS SDK, in one line."""

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import ConfigParseError, PartialCredentialsError, ProfileNotFound

from maintainer.errors import StoreError, UsageError
from maintainer.sanitize import printable


@contextmanager
def configuring() -> Iterator[None]:
    """Turn the errors of a configuration into ours, without a value that may be a secret."""
    try:
        yield
    except ProfileNotFound as error:
        profile = printable(str(error.kwargs.get("profile")))
        raise UsageError(
            f"there is no AWS profile {profile}: add it to the AWS configuration, or change "
            "AWS_PROFILE"
        ) from None
    except ConfigParseError as error:
        path = printable(str(error.kwargs.get("path")))
        raise UsageError(
            f"{path} is not a valid AWS configuration: correct it, or change AWS_CONFIG_FILE or "
            "AWS_SHARED_CREDENTIALS_FILE"
        ) from None
    except PartialCredentialsError as error:
        missing = printable(str(error.kwargs.get("cred_var")))
        raise UsageError(f"the AWS credentials are incomplete: set {missing} too") from None
    except OSError as error:
        if not isinstance(error.filename, str):
            raise
        raise UsageError(
            f"the AWS SDK cannot read {printable(error.filename)}: {error.strerror}: check "
            "AWS_WEB_IDENTITY_TOKEN_FILE and the AWS configuration"
        ) from None
    except (AttributeError, KeyError, TypeError, ValueError):
        raise StoreError("the AWS SDK cannot use its configuration or credentials") from None
