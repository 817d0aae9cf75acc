import builtins

import pytest

from tests.move_tasks import MoveTasks


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)


@pytest.fixture(autouse=True)
def move_tasks():
    with MoveTasks().installed() as tasks:
        yield tasks


@pytest.fixture
def answer(monkeypatch):
    def answer(text):
        def ask(_):
            if text is None:
                raise EOFError
            return text

        monkeypatch.setattr(builtins, "input", ask)

    return answer


@pytest.fixture
def letters(put_dead_letter):
    for number in range(25):
        put_dead_letter(f"agent-{number}", reason="temporary", status="failed")


@pytest.mark.usefixtures("letters")
def test_the_dead_letters_are_shown_and_moved_and_the_move_is_followed_to_its_end(run, cloud):
    code, said = run("replay", "--yes")
    assert code == 0
    assert "25  temporary (failed)" in said
    assert "10 of about 25 moved: running" in said
    assert "25 of about 25 moved: completed" in said
    assert len(cloud.messages) == 25
    assert cloud.dead_letters() == []


@pytest.mark.usefixtures("letters")
@pytest.mark.parametrize(("text", "code"), [("n", 1), ("", 1), (None, 2)])
def test_nothing_is_moved_without_a_confirmation(run, cloud, answer, text, code):
    answer(text)
    assert run("replay")[0] == code
    assert len(cloud.dead_letters()) == 25


@pytest.mark.usefixtures("letters")
def test_a_confirmation_moves_them(run, cloud, answer):
    answer("y")
    assert run("replay")[0] == 0
    assert cloud.dead_letters() == []


@pytest.mark.usefixtures("letters")
def test_a_replay_that_fails_exits_with_1_and_the_reason(run, move_tasks):
    move_tasks.failure = "AWS.SimpleQueueService.NonExistentQueue"
    code, said = run("replay", "--yes")
    assert code == 1
    assert "NonExistentQueue" in said


def test_nothing_is_moved_from_an_empty_queue(run):
    code, said = run("replay")
    assert code == 0
    assert "dead-letter queue of agent-log-capture: 0" in said
