"""What ends a command: each error's text tells a person what is wrong and what to do."""

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)

WELL, NEEDS_A_PERSON, USAGE = 0, 1, 2

_NO_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    SSOError,
    TokenRetrievalError,
)
_REFUSED_CREDENTIALS = frozenset(
    {
        *("ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException"),
        *("SignatureDoesNotMatch", "InvalidSignatureException", "AuthFailure"),
    }
)
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "AccessDeniedFault"})


class OperatorError(Exception):
    """A command cannot go on; the message says why, and what to do."""


def code_of(error: ClientError) -> str:
    """Return the service's own word for what is wrong."""
    return error.response.get("Error", {}).get("Code", "")


def is_denied(error: ClientError) -> bool:
    """Tell whether the credentials are good, and may not do this."""
    return code_of(error) in _DENIED


def explained(error: BotoCoreError | ClientError) -> str:
    """Return what an error of boto3 means for whoever ran the command."""
    if isinstance(error, _NO_CREDENTIALS):
        return f"no AWS credentials: {error}. Log in (aws sso login), or set AWS_PROFILE."
    if isinstance(error, ProfileNotFound):
        return f"{error}: see AWS_PROFILE and ~/.aws/config."
    if isinstance(error, NoRegionError):
        return "no AWS region: say REGION=… (--region …), or set AWS_REGION."
    if isinstance(error, EndpointConnectionError):
        return f"AWS cannot be reached: {error} Check the region and the network."
    return _answer(error) if isinstance(error, ClientError) else str(error)


def _answer(error: ClientError) -> str:
    if code_of(error) in _REFUSED_CREDENTIALS:
        return f"AWS refuses the credentials ({code_of(error)}): log in again, or check AWS_PROFILE."
    if is_denied(error):
        return f"the credentials may not call {error.operation_name}: {error}"
    return str(error)
