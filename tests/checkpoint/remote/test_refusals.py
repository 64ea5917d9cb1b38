"""What stores say, in words; the texts are those that the library raised beside real servers."""

import pytest

from rlmerge.checkpoint.remote.refusals import brief, network_hint, refusal

LISTED = "Generic S3 error: Error performing list request: Error performing GET http://127.0.0.1:9/no?x=2 in 3ms - "
XML = "<?xml version='1.0'?>\n<Error><Code>{}</Code><Message>m</Message></Error>"


def answered(status, code=""):
    return f"{LISTED}Server returned non-2xx status code: {status}: " + (XML.format(code) if code else "")


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        (answered("403 Forbidden"), "the store denies access", "credentials"),
        (answered("400 Bad Request", "ExpiredToken"), "the store denies access (ExpiredToken)", "credentials"),
        (answered("404 Not Found", "NoSuchBucket"), "there is no such bucket", "name in the address"),
        (answered("404 Not Found"), "there is no such bucket", "name in the address"),
        (answered("404 Not Found", "ContainerNotFound"), "there is no such bucket", "account"),
        (answered("400 Bad Request", "InvalidBucketName"), "400 Bad Request, InvalidBucketName", "settings"),
        (f"{LISTED}Received redirect without LOCATION, this", "in another region", "AWS_REGION"),
        (answered("400 Bad Request", "AuthorizationHeaderMalformed"), "in another region", "AWS_REGION"),
        (
            "Error performing PUT http://169.254.169.254/latest/api/token in 347µs - Server returned non-2xx status "
            "code: 403 Forbidden: denied",
            "no credentials were found",
            "environment",
        ),
    ],
)
def test_what_no_other_try_would_change(text, what, hint):
    found = refusal(text)
    assert what in found.what and hint in found.hint
    assert "http" not in found.what and "Generic" not in found.what


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (answered("503 Service Unavailable", "SlowDown"), "the store answered 503 Service Unavailable, SlowDown"),
        (answered("429 Too Many Requests"), "the store answered 429 Too Many Requests"),
        (answered("400 Bad Request", "RequestTimeout"), "the store answered 400 Bad Request, RequestTimeout"),
        (f"{LISTED}HTTP error: error sending request", "the store cannot be reached"),
        (f"{LISTED}HTTP error: request or operation timed out", "the store did not answer in time"),
        ("12 bytes came of 13", "12 bytes came of 13"),
    ],
)
def test_what_may_pass_is_said_in_a_few_words(text, said):
    assert refusal(text) is None
    assert brief(text) == said


def test_words_of_a_library_are_one_short_line_without_secrets():
    assert brief("first\nsecond") == "first" and len(brief("x" * 1000)) <= 240
    assert brief(ValueError()) == "ValueError"
    assert brief("no https://key:hunter2@host/x?sig=hunter2 \x1b[1m") == "no https://host/x \\x1b[1m"


def test_the_endpoint_is_named_without_its_secret(monkeypatch):
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://key:hunter2@host?token=hunter2")
    assert network_hint("s3://b/x") == "Check the network and AWS_ENDPOINT_URL (https://host), then run again."
    assert "AWS" not in network_hint("az://b/x") and "AWS" not in network_hint("hf://org/name")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert (
        network_hint("s3://b/x", " with --resume") == "Check the network and the store, then run again with --resume."
    )
