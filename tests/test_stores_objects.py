"""Objects are read, written, listed and removed; a real S3 in another process says what is true."""

import hashlib
import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from batchllm import stores
from batchllm.errors import CannotWrite, InputError, StorageFailure, UsageError
from batchllm.stores import ObjectUrl, driver, object_url
from batchllm.stores import objects as objects_module
from tests.cutting_proxy import CuttingProxy, cutting_proxy
from tests.object_store import ObjectStore


@pytest.fixture
def bucket(object_store: ObjectStore) -> ObjectUrl:
    return object_url(f"s3://{object_store.new_bucket()}/")


def test_an_object_comes_back_as_it_was_put_in_one_part_or_many(
    bucket: ObjectUrl, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(9_000_000)
    monkeypatch.setattr(objects_module, "PIECE_BYTES", 1 << 20)
    for limit in (32 << 20, 1 << 20):
        monkeypatch.setattr(objects_module, "SINGLE_PUT_BYTES", limit)
        put = stores.put(bucket / f"ü {limit}%20.csv", io.BytesIO(content))
        found = stores.head(put.url)
        assert found == put and found.size_bytes == len(content)
        assert found.sha256 == hashlib.sha256(content).hexdigest()
        assert b"".join(stores.stream(found)) == content
        assert b"".join(stores.stream(found, 5_000_001)) == content[5_000_001:]
        assert stores.read(found.url, 8_999_999, 9_999_999, etag=found.etag) == content[-1:]
    assert object_store.uploads(bucket.bucket) == []


def test_an_empty_object_has_no_pieces(bucket: ObjectUrl) -> None:
    stores.put(bucket / "empty.csv", b"")
    found = stores.head(bucket / "empty.csv")
    assert found is not None and found.size_bytes == 0
    assert list(stores.stream(found)) == []


def test_an_object_that_changes_between_two_pieces_is_noticed(
    bucket: ObjectUrl, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects_module, "PIECE_BYTES", 4)
    found = stores.put(bucket / "a.csv", b"text\nfirst\n" * 5)
    pieces = stores.stream(found)
    assert next(pieces) == b"text"
    object_store.put(bucket.bucket, "a.csv", b"text\nother\n" * 5)
    with pytest.raises(InputError, match=r"a\.csv: it changed while it was read"):
        list(pieces)


def test_of_many_that_create_an_object_one_succeeds(bucket: ObjectUrl, object_store: ObjectStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: stores.create(bucket / "claims/1", b"%d" % number), range(8)))
    assert sum(made) == 1
    assert object_store.get(bucket.bucket, "claims/1") == b"%d" % made.index(True)


def test_objects_below_a_prefix_are_listed_in_order_and_removed(bucket: ObjectUrl) -> None:
    for key in ("work/b", "work/a/c", "workshop", "other"):
        stores.put(bucket / key, b"12")
    found = list(stores.listed(bucket / "work"))
    assert [(info.url.key, info.size_bytes) for info in found] == [("work/a/c", 2), ("work/b", 2)]
    assert found[0].etag
    assert len(list(stores.listed(bucket))) == 4
    assert list(stores.listed(bucket / "none")) == []
    stores.delete(bucket / "work/b")
    stores.delete(bucket / "work/b")
    assert stores.head(bucket / "work/b") is None


def test_what_can_be_written_is_found_without_a_trace(bucket: ObjectUrl, object_store: ObjectStore) -> None:
    object_store.put(bucket.bucket, "there.csv", b"mine")
    stores.check_writable(bucket / "there.csv")
    stores.check_writable(bucket / "new.csv")
    assert object_store.keys(bucket.bucket) == ["there.csv"]
    assert object_store.get(bucket.bucket, "there.csv") == b"mine"
    assert object_store.uploads(bucket.bucket) == []


def test_a_missing_bucket_is_named(object_store: ObjectStore) -> None:
    url = object_url("s3://no-such-bucket/a.csv")
    with pytest.raises(InputError, match=r"^s3://no-such-bucket/a\.csv: there is no such bucket; create it"):
        stores.head(url)
    with pytest.raises(InputError, match="there is no such bucket"):
        list(stores.listed(url))
    for write in (stores.check_writable, stores.delete):
        with pytest.raises(CannotWrite, match="there is no such bucket"):
            write(url)
    for put in (stores.put, stores.create):
        with pytest.raises(CannotWrite, match="there is no such bucket"):
            put(url, b"")


@pytest.mark.parametrize(
    "wrong",
    [
        {"AWS_ACCESS_KEY_ID": "AKIAWRONGWRONGWRONG1"},
        {"AWS_SECRET_ACCESS_KEY": "thesecretthatmustnotshow"},
        {"AWS_SESSION_TOKEN": "atokenthatmustnotshow", "AWS_ACCESS_KEY_ID": "ASIAWRONGWRONGWRONG1"},
    ],
)
def test_wrong_credentials_are_refused_and_never_shown(
    bucket: ObjectUrl, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str]
) -> None:
    object_store.put(bucket.bucket, "a.csv", b"1")
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    url = bucket / "a.csv"
    secrets = [object_store.key_id, object_store.secret, *wrong.values(), "Signature", "AWS4-HMAC"]
    for request in (
        lambda: stores.head(url),
        lambda: stores.read(url, 0, 1, etag=None),
        lambda: list(stores.listed(bucket)),
        lambda: stores.put(url, b"2"),
        lambda: stores.create(url, b"2"),
        lambda: stores.check_writable(url),
    ):
        with pytest.raises(UsageError) as raised:
            request()
        message = str(raised.value)
        assert message.startswith(f"s3://{bucket.bucket}/") and "credentials are refused" in message
        assert raised.value.__cause__ is None and raised.value.__suppress_context__
        assert not [secret for secret in secrets if secret in message.replace("SignatureDoesNotMatch", "")]


def test_missing_permission_is_told_from_wrong_credentials(
    bucket: ObjectUrl, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    object_store.put(bucket.bucket, "a.csv", b"1")
    for name, value in object_store.new_user(["s3:GetObject"]).items():
        monkeypatch.setenv(name, value)
    assert stores.head(bucket / "a.csv") is not None
    with pytest.raises(
        CannotWrite, match=r"a\.csv: it cannot be written with these credentials \(AccessDenied\)"
    ):
        stores.check_writable(bucket / "a.csv")
    for name, value in object_store.new_user(["s3:PutObject"]).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="cannot be read with these credentials"):
        stores.head(bucket / "a.csv")


def test_a_store_that_is_not_there_is_a_failure_that_passes(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "_RETRIES", {"max_retries": 0})
    driver._bucket.cache_clear()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(
        StorageFailure, match=r"^s3://b-1/a\.csv: the store cannot be reached .*same command again$"
    ):
        stores.head(object_url("s3://b-1/a.csv"))


@pytest.fixture
def proxy(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[CuttingProxy]:
    with cutting_proxy(object_store.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        monkeypatch.setattr(
            driver, "_RETRIES", {"max_retries": 2, "backoff": {"init_backoff": timedelta(milliseconds=1)}}
        )
        driver._bucket.cache_clear()
        yield proxy


@pytest.mark.parametrize("size_bytes", [3_000_000, 12_000_000], ids=["one request", "parts"])
def test_an_upload_that_is_cut_leaves_nothing(
    bucket: ObjectUrl,
    object_store: ObjectStore,
    proxy: CuttingProxy,
    monkeypatch: pytest.MonkeyPatch,
    size_bytes: int,
) -> None:
    monkeypatch.setattr(objects_module, "SINGLE_PUT_BYTES", 10_000_000)
    monkeypatch.setattr(objects_module, "_WAITS_S", (0.0,))
    object_store.put(bucket.bucket, "out.csv", b"the version before")
    proxy.sent_bytes = 1_000_000
    with pytest.raises(StorageFailure, match=r"out\.csv: the store cannot be reached"):
        stores.put(bucket / "out.csv", bytes(size_bytes))
    assert proxy.cuts
    assert object_store.get(bucket.bucket, "out.csv") == b"the version before"
    assert object_store.keys(bucket.bucket) == ["out.csv"]
    assert object_store.uploads(bucket.bucket) == []


def test_an_upload_goes_on_after_a_cut(
    bucket: ObjectUrl, object_store: ObjectStore, proxy: CuttingProxy
) -> None:
    proxy.sent_bytes, proxy.cuts_left = 1_000_000, 1
    content = os.urandom(2_000_000)
    stores.put(bucket / "out.csv", content)
    assert proxy.cuts == 1
    assert object_store.get(bucket.bucket, "out.csv") == content


def test_an_upload_in_parts_and_a_listing_are_begun_again_after_a_cut(
    bucket: ObjectUrl, object_store: ObjectStore, proxy: CuttingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects_module, "_WAITS_S", (0.0, 0.0))
    monkeypatch.setattr(objects_module, "SINGLE_PUT_BYTES", 1_000)
    proxy.received_bytes, proxy.cuts_left = 300, 1
    stores.check_writable(bucket / "out.csv")
    assert proxy.cuts == 1
    proxy.cuts_left = 1
    stores.put(bucket / "out.csv", b"x" * 2_000)
    assert proxy.cuts == 2
    assert object_store.get(bucket.bucket, "out.csv") == b"x" * 2_000
    proxy.cuts_left = 1
    assert [info.url.name for info in stores.listed(bucket)] == ["out.csv"]
    assert proxy.cuts == 3


def test_reading_goes_on_after_a_cut(
    bucket: ObjectUrl, object_store: ObjectStore, proxy: CuttingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(3_000_000)
    object_store.put(bucket.bucket, "in.csv", content)
    monkeypatch.setattr(objects_module, "PIECE_BYTES", 1_000_000)
    found = stores.head(bucket / "in.csv")
    assert found is not None
    proxy.received_bytes, proxy.cuts_left = 400_000, 3
    assert b"".join(stores.stream(found)) == content
    assert proxy.cuts == 3
    proxy.received_bytes, proxy.cuts_left = 1_000, 10**9
    with pytest.raises(StorageFailure, match=r"in\.csv: the store cannot be reached"):
        list(stores.stream(found))
