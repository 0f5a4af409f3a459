"""URLs of objects are read with care: what is secret in them is never shown."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.errors import UsageError
from batchllm.stores import ObjectUrl, is_url, object_url


@pytest.mark.parametrize(
    ("text", "bucket", "key", "shown"),
    [
        ("s3://bucket/a/b c%20.csv", "bucket", "a/b c%20.csv", "s3://bucket/a/b c%20.csv"),
        ("s3://bucket/what?.csv#1", "bucket", "what?.csv#1", "s3://bucket/what?.csv#1"),
        ("S3://bucket", "bucket", "", "s3://bucket/"),
        ("gs://bucket/folder/", "bucket", "folder/", "gs://bucket/folder/"),
        ("az://container/x.parquet", "container", "x.parquet", "az://container/x.parquet"),
        ("https://host/a%20b.csv", "host", "a%20b.csv", "https://host/a%20b.csv"),
        ("https://host:8443/x.csv?X-Amz-Signature=abc", "host:8443", "x.csv", "https://host:8443/x.csv?***"),
        ("http://127.0.0.1:80/x.csv", "127.0.0.1:80", "x.csv", "http://127.0.0.1:80/x.csv"),
        (
            "https://bücher.example/x.csv",
            "xn--bcher-kva.example",
            "x.csv",
            "https://xn--bcher-kva.example/x.csv",
        ),
        ("http://[::1]:80/x.csv", "[::1]:80", "x.csv", "http://[::1]:80/x.csv"),
    ],
)
def test_a_url_is_read(text: str, bucket: str, key: str, shown: str) -> None:
    url = object_url(text)
    assert (url.bucket, url.key, str(url)) == (bucket, key, shown)


def test_a_url_that_went_through_a_path_is_read() -> None:
    assert str(object_url(Path("s3://bucket/a.csv"))) == "s3://bucket/a.csv"


def test_a_url_has_the_names_of_a_path() -> None:
    url = object_url("https://host/folder/a%20b.csv.gz?sig=1")
    assert (url.name, url.suffix) == ("a b.csv.gz", ".gz")
    assert object_url("https://host/o/2026%2Fmay%2Fa%20b.csv?alt=media").name == "a b.csv"
    assert object_url("https://host/o/%00a%2e%2e.csv").name == "a...csv"
    assert str(object_url("s3://b-1/x/a.csv").with_name("b.csv")) == "s3://b-1/x/b.csv"
    assert str(object_url("s3://b-1/a.csv").with_name("b.csv")) == "s3://b-1/b.csv"
    assert str(object_url("s3://b-1/") / "x/b.csv") == "s3://b-1/x/b.csv"
    folder = object_url("s3://b-1/x/out/")
    assert (folder.name, str(folder.with_name("other")), str(folder.with_name(""))) == (
        "out",
        "s3://b-1/x/other/",
        "s3://b-1/x/",
    )
    assert object_url("s3://b-1").is_prefix and not object_url("s3://b-1/a").is_prefix


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ftp://host/a.csv", "unknown kind of URL"),
        ("s3a://bucket/a.csv", "unknown kind of URL"),
        ("s3://user:hunter2@bucket/a.csv", "must not hold a name or password"),
        ("https://user:hunter2@host/a.csv", "must not hold a name or password"),
        ("ftp://user:hunter2@host/a.csv?sig=hunter2", "unknown kind of URL"),
        ("s3://b ad/a.csv", "cannot be the name of a bucket"),
        ("s3://bucket/a//b.csv", "empty part"),
        ("s3://bucket/../b.csv", "empty part"),
        ("s3://bucket/a\x1b[2Jb.csv", "cannot be shown"),
        ("http://example.com/a.csv?sig=hunter2", "plain http"),
        ("http://8.8.8.8/a.csv", "plain http"),
        ("https://host/a b.csv?sig=hunter2", "a space in it is written %20"),
        (f"https://{'a' * 70}.com/a.csv?sig=hunter2", "not a URL"),
        ("https://[::1/a.csv?sig=hunter2", "not a URL"),
    ],
)
def test_a_wrong_url_is_refused_without_its_secrets(text: str, reason: str) -> None:
    assert is_url(text)
    with pytest.raises(UsageError, match=reason) as raised:
        object_url(text)
    assert "hunter2" not in str(raised.value)
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    "text", ["a.csv", "/tmp/a.csv", "data/s3/a.csv", "C:/a.csv", "odd:/a.csv", "-", "s3:a.csv"]
)
def test_a_path_is_no_url(text: str) -> None:
    assert not is_url(text)


_PARTS = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="/"), min_size=1).filter(
    lambda part: part not in (".", "..")
)


@settings(max_examples=25)
@given(parts=st.lists(_PARTS, min_size=1, max_size=3))
def test_every_key_comes_back(parts: list[str]) -> None:
    url = ObjectUrl("s3", "bucket", "/".join(parts))
    assert object_url(str(url)) == url


@settings(max_examples=25)
@given(query=st.text(st.characters(codec="ascii", exclude_categories=["C", "Z"]), min_size=12))
def test_a_query_is_in_nothing_that_is_shown_or_compared(query: str) -> None:
    url = object_url(f"https://host/a.csv?{query}")
    assert query not in f"{url} {url!r}"
    assert url == object_url("https://host/a.csv")
