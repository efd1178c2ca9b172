"""What is taken out of lines and messages, and what is left."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from logs import redaction
from logs.redaction import learn, learn_environment, redacted, redacted_value

MARK = "s3cr3tMARK"


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is known at the beginning, and nothing stays known."""
    monkeypatch.setattr(redaction, "_known", set())
    redaction._pattern_of_known.cache_clear()
    yield
    redaction._pattern_of_known.cache_clear()


@pytest.mark.parametrize(
    "text",
    [
        f"redis://:{MARK}@redis:6379/0",
        f"Error 111 connecting to rediss://user:{MARK}@h:6379",
        f"postgresql+psycopg://modelyard:{MARK}@db:5432/modelyard is away",
        f"https://ann:{MARK}@files.example/iris.csv",
        f"https://ann:with@in{MARK}@files.example/iris.csv",
        f"https://files.example/iris.csv?X-Amz-Credential=AKIA&X-Amz-Signature={MARK}",
        f"https://files.example/iris.csv?any={MARK}#part",
        f"GET /datasets/x?api_key={MARK}&limit=3",
        f"GET /tasks?key={MARK}",
        f"Authorization: Bearer {MARK}",
        f"Authorization: AWS4-HMAC-SHA256 Credential=AKIA/2026/s3, SignedHeaders=host, Signature={MARK}",
        f"{{'Authorization': 'Basic {MARK}', 'Accept': '*/*'}}",
        f"('authorization', b'Basic {MARK}')",
        f'{{"X-API-KEY": "{MARK}"}}',
        f"x-api-key: {MARK}",
        f"Cookie: session={MARK}",
        f"sent Basic {MARK}= along",
        f"host=db user=ann password={MARK} dbname=x",
        f'{{"password": "{MARK}", "user": "ann"}}',
        f"{{'client_secret': '{MARK} with a blank'}}",
        f"AWS_SECRET_ACCESS_KEY={MARK}",
        f"MODELYARD_FLOWER_LOGIN=ann:{MARK}",
        f"MODELYARD_KEY='{MARK}'",
        f"the secret whsec_{MARK}/+= of the hook",
    ],
)
def test_credentials_are_gone_whoever_they_belong_to(text: str):
    assert MARK not in redacted(text)
    assert "***" in redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        "train-17-a2 is finished",
        "data cannot be read from 'https://files.example/iris.csv': no such file",
        "s3://bucket/a/b.csv holds 3 rows",
        "column 'token' has 3 values; unexpected token: 7",
        "Basic authentication is needed; a bearer presents a key",
        "POST /predict 200 3.1 ms ann",
        "GET /tasks?state=failed&cursor=eyJiZWZvcmUiOiAzfQ&limit=5",
        "parameters.mllib.key is unknown; did you mean 'keys'?",
        "ann@example.org owns 3 keys = many",
    ],
)
def test_all_else_stays(text: str):
    assert redacted(text) == text


def test_values_of_this_process_are_gone_wherever_they_stand():
    learn_environment(
        {
            "MODELYARD_REDIS_URL": f"redis://:{MARK}%2Fone@h/0",
            "AWS_SECRET_ACCESS_KEY": f"{MARK}two",
            "MODELYARD_FLOWER_LOGIN": f"ann:{MARK}three",
            "OTEL_EXPORTER_OTLP_HEADERS": f"x-token={MARK}four,other={MARK}five",
            "MODELYARD_HOME": "/srv/modelyard",
            "HOME": "/home/ann",
        }
    )
    for word in (f"{MARK}%2Fone", f"{MARK}/one", f"{MARK}two", f"{MARK}three", f"{MARK}four", f"{MARK}five"):
        assert MARK not in redacted(f"a library says {word} for no reason"), word
    assert redacted("/srv/modelyard and /home/ann stay") == "/srv/modelyard and /home/ann stay"


def test_longer_secret_goes_whole_although_another_begins_it():
    learn(["abcdefgh", "abcdefgh-and-more"])
    assert redacted("x abcdefgh-and-more y abcdefgh z") == "x *** y *** z"


def test_short_values_would_take_words_with_them_and_stay():
    learn(["the"])
    assert redacted("the word") == "the word"


def test_values_inside_others_are_looked_through():
    class Odd:
        def __repr__(self) -> str:
            return f"<Odd password={MARK}>"

    value = {"headers": {"Authorization": MARK, "n": 1}, "list": [f"redis://:{MARK}@h", None, 2.5], "odd": Odd()}
    told = redacted_value(value)
    assert MARK not in str(told)
    assert told["headers"]["n"] == 1
    assert told["list"][1:] == [None, 2.5]


def test_value_that_holds_itself_ends():
    endless: list[object] = []
    endless.append(endless)
    assert "***" in str(redacted_value(endless))


@pytest.mark.parametrize(
    "piece", ["a.", "http://", "a://", "password", "password=", "'token':'", "Basic 1", "authorization:", "?key="]
)
def test_long_text_that_a_client_made_up_takes_no_longer_than_its_length(piece: str):
    def took_s(length: int) -> float:
        text = (piece * length)[:length]
        began = time.process_time()
        redacted(text)
        return time.process_time() - began

    took_s(1000)
    # Ten times the text; a hundred times the time would be a lever.
    assert took_s(80_000) < 50 * took_s(8_000) + 0.2


def test_address_that_was_told_without_its_query_stays_as_it_is():
    told = "cannot be read from 'https://host/a.csv?…': status 404"
    assert redacted(told) == told
    assert redacted("https://host/a?…&x=1") == "https://host/a?***"
