import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent_log_capture.domain.printable import printable
from tests.fuzz.checks import check_text


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("backup failed", 80, "backup failed"),
        ("über 𝄞", 80, "über 𝄞"),
        ("a\r\nb\tc\x1b[31m", 80, "a  b c [31m"),
        ("safe\u202eelif\ufeff\ud800", 80, "safe elif  "),
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
        ("", 3, ""),
        ("a\u2028b\u2029c\x85d\U000e0041e\ue000f\xadg", 80, "a b c d e f g"),
        (
            "Z\u0351\u0320\u0302\u0301 \u0e01\u0e48\u0e49 \u26a0\ufe0f",
            80,
            "Z\u0351\u0320\u0302\u0301 \u0e01\u0e48\u0e49 \u26a0\ufe0f",
        ),
        ("a" + "\u0301" * 6 + "b" + "\u20dd" * 5, 80, "a" + "\u0301" * 4 + "  b" + "\u20dd" * 4 + " "),
    ],
)
def test_a_text_is_put_on_one_line_and_cut(text, limit, expected):
    assert printable(text, limit) == expected


ANYTHING = (
    st.text()
    | st.text(st.characters(categories=["Mn", "Me", "Mc"]) | st.sampled_from("a…"))
    | st.binary().map(lambda data: data.decode("utf-8", "surrogateescape"))
)


@given(text=ANYTHING, limit=st.integers(1, 50))
@example(text="\u0301" * 9, limit=5)
def test_what_is_printable_stays_as_it_is(text, limit):
    shown = printable(text, limit)
    assert printable(shown, limit) == shown


@given(text=ANYTHING, limit=st.integers(1, 50))
def test_anything_that_comes_is_printable_and_short(text, limit):
    shown = printable(text, limit)
    assert shown.isprintable()
    assert len(shown) == min(len(text), limit)
    check_text(shown)
    shown.encode()
