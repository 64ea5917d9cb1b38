import pytest

from rlmerge.addresses import check_address, is_address, without_secrets


@pytest.mark.parametrize(
    "text", ["s3://bucket/a/b", "gs://b", "az://c/x", "https://host/x", "hf://org/name", "ftp://x"]
)
def test_what_begins_with_a_scheme_is_an_address(text):
    assert is_address(text)


@pytest.mark.parametrize("text", ["org/name", "org/name@main", "/models/s3", "~/x", "./s3:/x", "C:\\models", ""])
def test_paths_and_hub_ids_are_none(text):
    assert not is_address(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("s3://bucket/models/base/", "s3://bucket/models/base"),
        ("s3://bucket", "s3://bucket"),
        ("az://container/x", "az://container/x"),
        ("https://host:8443/models/a", "https://host:8443/models/a"),
        ("http://127.0.0.1:9000/a", "http://127.0.0.1:9000/a"),
        ("hf://org/name@refs/pr/1", "hf://org/name@refs/pr/1"),
    ],
)
def test_good_addresses(text, found):
    assert check_address(text) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("s3://AKIAKEY:hunter2@bucket/x", "secret"),
        ("https://me:hunter2@host/x", "secret"),
        ("https://host/x?X-Amz-Signature=hunter2", "signed link"),
        ("https://host/x#hunter2", "signed link"),
        ("az://c/x?sv=1&sig=hunter2", "signed link"),
    ],
)
def test_secrets_are_refused_and_not_repeated(text, said):
    with pytest.raises(ValueError, match=said) as error:
        check_address(text)
    assert "hunter2" not in str(error.value) and "AKIA" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ftp://host/x", "known: s3://"),
        ("s3:///x", "no bucket"),
        ("http://example.org/x", "without encryption"),
        ("s3://bucket/../other", "not a plain address"),
        ("s3://bucket/a\x1b[31m", "not a plain address"),
        ("hf://name", "hf://org/name"),
        ("hf://org/name@rev?x=1", "hf://org/name"),
        ("https://[::1/x", "cannot be read"),
    ],
)
def test_bad_addresses(text, said):
    with pytest.raises(ValueError, match=said):
        check_address(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("GET https://u:p@host/a?sig=s failed", "GET https://host/a failed"),
        ("<https://host/a?sig=s>; https://host/b", "<https://host/a>; https://host/b"),
        ("nothing at all", "nothing at all"),
    ],
)
def test_secrets_are_cut_out_of_the_messages_of_libraries(text, found):
    assert without_secrets(text) == found
