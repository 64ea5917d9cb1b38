"""What an object store's failures mean, in words: what is wrong, and what to check. Nothing here repeats a secret."""

from __future__ import annotations

import os
import re

from rlmerge.addresses import without_secrets
from rlmerge.frozen import frozen
from rlmerge.text import plain, shortened

ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
"""Variables that say where the store of a scheme is, the first first."""

CREDENTIALS = "Give credentials the way that the store's own tools read them (environment, configuration or login)."

_STATUS = re.compile(r"non-2xx status code: (\d{3})((?: [A-Z][A-Za-z-]*)*)")
_CODE = re.compile(r"<Code>(\w{1,64})</Code>")
_PASSING = ("408", "409", "425", "429")
_PASSING_CODES = ("RequestTimeout", "SlowDown", "InternalError", "ServerBusy", "OperationTimedOut")
_DENIED = (
    "AccessDenied", "AccountProblem", "AuthenticationFailed", "AuthorizationFailure", "ExpiredToken",
    "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch", "TokenRefreshRequired",
)  # fmt: skip
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")
_METADATA = ("169.254.169.254", "169.254.170.2", "metadata.google.internal", "metadata/instance")


@frozen(slots=True)
class Refusal:
    """Why no other try of a request would help: ``what`` is wrong, and a ``hint`` at what to do."""

    what: str
    hint: str


def refusal(error: object) -> Refusal | None:
    """What is wrong for good with a request that the library says failed with ``error``; None if a try may help."""
    text = str(error)
    status, reason, code = _answer(text)
    if "without LOCATION" in text or status in ("301", "307") or code == "AuthorizationHeaderMalformed":
        hint = "Set AWS_REGION to the region of the bucket, or AWS_ENDPOINT_URL to the store that has it."
        return Refusal("the store says that the bucket is in another region", hint)
    if not status.startswith("4") or status in _PASSING or code in _PASSING_CODES:
        return None
    if any(place in text for place in _METADATA):
        return Refusal("no credentials were found", CREDENTIALS)
    if status in ("401", "403") or code in _DENIED:
        return Refusal("the store denies access" + (f" ({code})" if code else ""), CREDENTIALS)
    if code in _NO_BUCKET or (status == "404" and "list request" in text):
        return Refusal("there is no such bucket", "Check the name in the address, and the account or the endpoint.")
    hint = "Check the address and the store's settings (region, account, endpoint)."
    return Refusal(f"the store refuses the request ({_told(status, reason, code)})", hint)


def brief(error: object) -> str:
    """What a library says of a failure, on one line, without secrets and without the library's own names."""
    text = str(error)
    status, reason, code = _answer(text)
    if status:
        return f"the store answered {_told(status, reason, code)}"
    if any(place in text for place in _METADATA):
        return "no credentials were found, and the machine's own do not answer"
    if "dns error" in text or "failed to lookup" in text:
        return "the name of the store's host is not known"
    if "timed out" in text or "operation timed out" in text:
        return "the store did not answer in time"
    if "error sending request" in text or "connection" in text.lower():
        return "the store cannot be reached"
    lines = without_secrets(text).splitlines()
    return plain(shortened(lines[0] if lines else type(error).__name__, 240))


def network_hint(address: str, then: str = "") -> str:
    """What to check when the store of ``address`` does not answer: the network, and the endpoint where one is set."""
    names = ENDPOINTS.get(address.partition("://")[0].lower(), ())
    name = next((name for name in names if os.environ.get(name)), None)
    place = f" and {name} ({plain(shortened(without_secrets(os.environ[name])))})" if name else " and the store"
    return f"Check the network{place}, then run again{then}."


def _answer(text: str) -> tuple[str, str, str]:
    """Status, its name and the store's code of an answer, empty where there was none."""
    status, code = _STATUS.search(text), _CODE.search(text)
    return status[1] if status else "", status[2].strip() if status else "", code[1] if code else ""


def _told(status: str, reason: str, code: str) -> str:
    words = f"{status} {reason}".strip()
    return f"{words}, {code}" if code else words
