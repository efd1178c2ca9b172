"""What is taken out of lines and messages, and what is left."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

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
        f"password: {MARK}",
        f"  db_password: {MARK}  # of the database",
        f"token: {MARK}",
        f"X-Auth-Token: {MARK}",
        f"{{'password': b'{MARK}', 'user': 'ann'}}",
        f"connect(password=b'{MARK}')",
        f'{{"password": "ab\\"{MARK}", "user": "ann"}}',
        f'password="ab {MARK}" user=ann',
        f"password=ab'{MARK} user=ann",
        f'{{"password": "cut off, {MARK}',
        f"environ['PASSWORD'] = '{MARK}'",
        f'{{"secrets": ["ab", "{MARK}"]}}',
        f"Cookie: first=ab; second={MARK}",
        f'\\"Authorization\\": \\"Bearer {MARK}\\"',
        f"redis://:a/b{MARK}?c#d@redis:6379/0",
        f"https://ann:a?b{MARK}@files.example/iris.csv?x=1",
        f"postgresql://ann:a#b{MARK}@db/modelyard, or another",
        f"redis://:a@b/c{MARK}@redis:6379/0",
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
        "step 3 of 9, token: 3 of 5, loss: 0.25, sig=0.5",
        "token: 12.5 % are rare; unexpected token: 'if'",
        "cannot find label column 'password': its columns are a, b",
        "NoCredentialsError: unable to locate credentials",
        "SignatureDoesNotMatch: the request is not the one that was signed",
        '{"token": 3, "secret": null, "password": {"user": "ann"}}',
        "https://files.example:8443/mails/ann@example.org",
        "a key is needed: send it as X-API-KEY, as Authorization: Bearer, or as the password of Basic",
    ],
)
def test_all_else_stays(text: str):
    assert redacted(text) == text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ('{"password": "ab\\"cd", "user": "ann"}', '{"password": "***", "user": "ann"}'),
        ('{"password": "ab\\\\", "user": "ann"}', '{"password": "***", "user": "ann"}'),
        ('{"pwd": 12, "token": 12345678, "n": 3}', '{"pwd": ***, "token": ***, "n": 3}'),
        ("{'api_key': b'abc', 'n': 3}", "{'api_key': b'***', 'n': 3}"),
        ("f(password=abc) and 'password=abc', 1", "f(password=***) and 'password=***', 1"),
        ("password: abc\nuser: ann", "password: ***\nuser: ann"),
        ("redis://:a/b@h1:1/0, redis://:c@h2:1/0", "redis://***@h1:1/0, redis://***@h2:1/0"),
        ("amqp://a:b@h1,amqp://c:d@h2", "amqp://***@h1,amqp://***@h2"),
        ("https://ann:a/b@host/x.csv?c=d#e", "https://***@host/x.csv?***"),
    ],
)
def test_no_more_than_the_secret_is_gone(text: str, left: str):
    assert redacted(text) == left
    assert redacted(left) == left


def in_json(value: object, depth: int) -> str:
    """JSON inside of JSON."""
    text = json.dumps({"answer": value, "n": 1})
    return text if depth == 0 else in_json(text, depth - 1)


@given(
    st.text(max_size=20), st.text(max_size=20), st.integers(0, 3), st.sampled_from(["password", "token", "x_secret"])
)
def test_secret_with_anything_in_it_is_gone_from_json_inside_of_json(before: str, after: str, depth: int, name: str):
    text = in_json({name: before + MARK + after, "user": "ann"}, depth)
    assert MARK not in redacted(text)
    assert "ann" in redacted(text)


@given(st.text(max_size=20), st.text(max_size=20), st.booleans())
def test_secret_with_anything_in_it_is_gone_from_what_python_prints(before: str, after: str, is_bytes: bool):
    secret = before + MARK + after
    printed = repr({"password": secret.encode() if is_bytes else secret, "user": "ann"})
    assert MARK not in redacted(printed)
    assert redacted(printed).endswith(", 'user': 'ann'}")


WRITTEN = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="'\"<>"), max_size=20)


@given(WRITTEN, WRITTEN, st.sampled_from(["", "ann"]))
def test_password_with_anything_in_it_is_gone_from_an_address(before: str, after: str, user: str):
    secret = before + MARK + after
    assume("://" not in f"{secret}@")
    # What looks like a port is one, and what follows the first @ may be a path.
    assume(not user or not ("@" in secret or re.match(r"\d{1,5}[/?#,]", secret)))
    assert MARK not in redacted(f"cannot reach redis://{user}:{secret}@host:6379/0 yet")


@given(st.text(st.sampled_from("abz XY09.,;:/\\\"'{}[]()#?@=&-_\n")))
def test_text_without_the_name_of_a_secret_stays(text: str):
    assert redacted(text.replace("://", "")) == text.replace("://", "")


@example(["password", ":", "a", "'", "a", "}", "a"])
@given(st.lists(st.sampled_from([*"ab1 \\'\",:={}[]@/?#\n", "password", "token", "redis://", "cookie:", "Bearer "])))
def test_what_was_redacted_holds_no_more_to_redact(pieces: list[str]):
    once = redacted("".join(pieces))
    assert redacted(once) == once


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
    "piece",
    [
        *("a.", "http://", "a://", "a://:", "a://b:c@", "@a://b:/", "password", "password=", "passwordx:", "token:"),
        *(
            "'token':'",
            "'token':",
            'token:"',
            "token:'a",
            "token:\\'",
            "\\",
            "password:\\",
            "password='\\'",
            "password:[",
        ),
        *(
            "token=1",
            "token:1",
            "token:a=",
            "Basic 1",
            "authorization:",
            'authorization:"',
            "cookie:a ",
            "cookie=",
            "?key=",
        ),
    ],
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
