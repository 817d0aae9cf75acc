from concurrent.futures import ThreadPoolExecutor

import pytest

from agent_log_capture.domain.responses import ResponseCounts


@pytest.mark.parametrize(
    ("status", "name"),
    [
        *((200, "2xx"), (202, "2xx"), (304, "3xx"), (401, "4xx"), (429, "4xx"), (500, "5xx"), (599, "5xx")),
        *((None, "none"), (100, "none"), (600, "none"), (0, "none")),
    ],
)
def test_an_answer_counts_for_the_class_of_its_status(status, name):
    answers = ResponseCounts()
    answers.add(status)
    assert answers.counts() == {name: 1}


def test_what_is_counted_later_does_not_change_what_was_told():
    answers = ResponseCounts()
    answers.add(200)
    told = answers.counts()
    answers.add(200)
    assert (told, answers.counts()) == ({"2xx": 1}, {"2xx": 2})


def test_answers_of_many_threads_are_all_counted():
    answers = ResponseCounts()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(answers.add, [200, None] * 500))
    assert answers.counts() == {"2xx": 500, "none": 500}
