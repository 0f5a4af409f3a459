"""An endpoint's own name of a model: put into the bytes that are sent, and nowhere else."""

import json

from hypothesis import given
from hypothesis import strategies as st

from batchllm.client.named import renamed
from batchllm.records import ChatRequest
from batchllm.template import dumps

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def request(model: str, body: bytes) -> ChatRequest:
    return ChatRequest(0, b"key", body, model, 0, None)


@given(TEXT, TEXT, st.dictionaries(TEXT, VALUES, max_size=4))
def test_only_the_model_changes_whatever_the_body_holds(
    model: str, own: str, more: dict[str, object]
) -> None:
    try:
        body = dumps(
            {
                "model": model,
                "messages": [{"role": "user", "content": f'{{"model":"{model}"}}'}],
                **{name: value for name, value in more.items() if name != "model"},
            }
        )
    except ValueError:
        return
    sent = renamed(request(model, body), own)
    assert sent.model == own
    assert sent.key == b"key"
    before, after = json.loads(body), json.loads(sent.body)
    assert after.pop("model") == own
    assert before.pop("model") == model
    assert after == before
    assert sent.body.endswith(body[len(dumps({"model": model})) - 1 :])


def test_a_body_that_does_not_begin_with_the_model_is_read() -> None:
    body = b'{"seed": 12345678901234567890123, "messages": [], "model": "a"}'
    sent = renamed(request("a", body), "b")
    assert json.loads(sent.body) == {"seed": 12345678901234567890123, "messages": [], "model": "b"}


def test_a_model_whose_name_begins_alike_is_not_taken_for_it() -> None:
    body = dumps({"model": 'a"b', "messages": []})
    assert json.loads(renamed(request('a"b', body), "c").body)["model"] == "c"
