"""Exit codes, and the errors that end a command with a sentence that says what to do."""

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    SSOError,
)

WELL, NEEDS_A_PERSON, USAGE = 0, 1, 2

_NO_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, SSOError)
_REFUSED_CREDENTIALS = {
    *("ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException"),
    *("SignatureDoesNotMatch", "InvalidSignatureException", "AuthFailure"),
}
# The credentials are valid, but lack the permission.
DENIED = {"AccessDenied", "AccessDeniedException", "AccessDeniedFault"}


class OperatorError(Exception):
    """A command cannot continue; the message says why, and what to do."""


def code_of(error: ClientError) -> str:
    """Return the service's error code."""
    return error.response.get("Error", {}).get("Code", "")


def explain(error: BotoCoreError | ClientError) -> str:
    """Return an error of boto3 as a sentence, with what to do about it."""
    if isinstance(error, NoRegionError):
        return "no AWS region: set REGION=… (--region …) or AWS_REGION"
    if isinstance(error, _NO_CREDENTIALS):
        return f"no AWS credentials: {error}. Log in (aws sso login), or set AWS_PROFILE."
    if isinstance(error, ClientError) and code_of(error) in _REFUSED_CREDENTIALS:
        return f"AWS refuses the credentials ({code_of(error)}): log in again, or check AWS_PROFILE."
    if isinstance(error, ClientError) and code_of(error) in DENIED:
        return f"the credentials may not call {error.operation_name}: {error}"
    return str(error)
