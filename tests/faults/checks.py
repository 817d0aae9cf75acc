"""What must hold after every run. Each function looks at a record alone, and yields what it finds wrong."""

from collections import Counter, defaultdict
from dataclasses import dataclass

from tests.faults.record import Key

_MOST_RECEIVES = 5
_ESCAPES = {"NotSavedError"}
_ESCAPES_FROM_THE_QUEUE = {"TooLittleTimeError"}  # which a run draws, and a machine under load adds to
_SECOND = 1.0
COUNTED = ("captured", "expired", "rejected", "failed", "duplicate", "requested")


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise: which, and what about."""

    rule: str
    about: str
    what: str


def check(record):
    """Return everything that is wrong with a run."""
    return [violation for rule in RULES for violation in rule(record)]


def key_of_notification(notification):
    """Return whose notification it is; the agent is empty where the event could not be read."""
    trigger = notification["trigger"]
    return Key(trigger["type"], trigger["id"], notification["agent_id"] or "")


def ended_twice(record):
    """Return why captures have ended in more than one way although they count as one: what there may be two of."""
    causes = Counter()
    for key, published in _endings(record).items():
        found = {cause.partition(":")[0] for cause in record.doublings[key]}
        first = next(
            (cause for cause in ("queue", "sent twice", "killed", "not saved") if cause in found), "answer lost"
        )
        causes[first] += len(published) - 1
    return causes


def ends_once(record):
    """Each capture has one ending, or lies in the dead-letter queue with its reason."""
    endings, letters, doubled = _endings(record), _letters(record), record.doubled
    for key in sorted(record.keys):
        published, kept = endings[key], letters[key]
        if not published and not kept:
            yield Violation("lost", str(key), "no ending was published, and no dead letter holds it")
        if len(published) > 1 + doubled[key]:
            yield Violation("ended more than once", str(key), f"{sorted(published.values())}")
        is_published_and_kept = published and kept and not doubled[key]
        if is_published_and_kept and not set(published.values()) <= {"failed", "rejected"}:
            yield Violation(
                "ended and kept", str(key), f"published {sorted(published.values())} and in the dead-letter queue"
            )
        if "failed" in published.values() and not kept:
            yield Violation("failed and not kept", str(key), "published as failed, and no dead letter holds it")


def keeps_what_is_refused(record):
    """Each value that is no agent ID is published and kept, or lies in the dead-letter queue unchanged."""
    published = defaultdict(list)
    for notification in record.notifications:
        if notification["agent_id"] is None and notification["status"] == "rejected":
            published[notification["trigger"]["type"], notification["trigger"]["id"]].append(notification["message"])
    for key in sorted(record.refused):
        is_published = any(key.agent_id in message for message in published[key[:2]])
        letters = [letter for letter in record.letters if key.agent_id in letter.text]
        if not letters:
            yield Violation(
                "lost",
                str(key),
                "what is no agent ID was published, but not kept" if is_published else "not published, not kept",
            )
        elif not is_published and all(letter.reason is None and _has_reason(letter) is False for letter in letters):
            yield Violation(
                "not published", str(key), "what is no agent ID was kept without a reason, and not published"
            )


def dead_letters_say_why(record):
    """Each dead letter has a reason, was received too often, or is wrapped by Lambda."""
    for letter in record.letters:
        if not _has_reason(letter):
            yield Violation("no reason", letter.text[:300], f"a dead letter after {letter.deliveries} deliveries")


def publishes_what_it_reports(record):
    """What a report calls ended has reached the subscribers, or lies in the dead-letter queue."""
    published = {notification["outcome_id"] for notification in record.notifications}
    letters = _letters(record)
    for ended in record.invocations:
        if ended.why_dead:
            continue
        for each in ended.published:
            if each.outcome_id not in published and not letters[each.key] and not _is_refused_and_kept(record, each):
                what = f"invocation {ended.number} reports {each.status}, and no notification arrived"
                yield Violation("not published", str(each.key), what)


def same_outcome_same_id(record):
    """The same outcome has the same `outcome_id`, and another outcome another one."""
    by_id, by_outcome = defaultdict(set), defaultdict(set)
    for notification in record.notifications:
        if notification["agent_id"] is None:
            continue
        outcome = (
            key_of_notification(notification),
            notification["region"],
            notification["status"],
            (notification["logfile"] or {}).get("id"),
        )
        by_id[notification["outcome_id"]].add(outcome)
        by_outcome[outcome].add(notification["outcome_id"])
    for outcome_id, outcomes in by_id.items():
        if len(outcomes) > 1:
            yield Violation("one ID for two outcomes", outcome_id, f"{sorted(map(str, outcomes))}")
    for outcome, ids in by_outcome.items():
        if len(ids) > 1:
            yield Violation("two IDs for one outcome", str(outcome), f"{sorted(ids)}")


def asks_no_more_than_it_must(record):
    """An agent is asked once for each trigger, and again only when it cannot be known whether it was asked."""
    dead = {ended.number for ended in record.invocations if ended.why_dead}
    triggers, doubled, doublings = Counter(), Counter(), record.doubled
    for key in record.keys:
        triggers[key.agent_id] += 1
        doubled[key.agent_id] += doublings[key]
    confirmed = Counter(
        post.agent_id
        for post in record.posts
        if post.status and post.status // 100 == 2 and post.invocation not in dead
    )
    for agent_id, count in confirmed.items():
        allowed = triggers[agent_id] + doubled[agent_id] + record.forgotten[agent_id]
        if count > allowed:
            what = (
                f"{count} requests were accepted, for {triggers[agent_id]} triggers and {doubled[agent_id]} doublings"
            )
            yield Violation("asked too often", agent_id, what)
    for agent_id, made in record.made.items():
        unconfirmed = made - confirmed[agent_id]
        if unconfirmed > _unanswered(record, dead, agent_id):
            yield Violation("asked too often", agent_id, f"{made} log files, {confirmed[agent_id]} confirmed")


def asks_once_in_a_delivery(record):
    """One delivery of a capture sends one request, and another one only when the token was refused."""
    keys = Counter((ended.number, key.agent_id) for ended in record.invocations for key in ended.keys)
    refused = Counter((post.invocation, post.agent_id) for post in record.posts if post.is_refused_token)
    for place, count in Counter((post.invocation, post.agent_id) for post in record.posts).items():
        if count > keys[place] + refused[place]:
            what = f"invocation {place[0]} sent {count} requests for {keys[place]} captures"
            yield Violation("asked twice in one delivery", place[1], what)


def keeps_the_cool_down(record):
    """While the table works, no agent is asked twice within the cool-down."""
    if not record.cool_down_seconds or not record.is_table_sound:
        return
    dead = {ended.number for ended in record.invocations if ended.why_dead}
    last = {}
    for post in record.posts:
        is_accepted = post.status and post.status // 100 == 2
        if not is_accepted or post.agent_id in record.forced or post.invocation in dead:
            continue
        before = last.get(post.agent_id)
        if before is not None and post.at - before < record.cool_down_seconds - _SECOND:
            yield Violation("asked within the cool-down", post.agent_id, f"again after {post.at - before:.0f} s")
        last[post.agent_id] = post.at


def is_in_one_place(record):
    """No capture waits twice in the queue, or waits and is ended."""
    for what in record.in_two_places:
        yield Violation("in two places", what, "and the cloud has doubled nothing")


def lets_nothing_escape(record):
    """No exception escapes the handler but those that make Lambda bring an event again; none hangs."""
    for ended in record.invocations:
        if ended.is_hung:
            yield Violation("hung", f"invocation {ended.number}", "it did not end")
        allowed = _ESCAPES_FROM_THE_QUEUE | (set() if ended.is_from_queue else _ESCAPES)
        if ended.error and ended.error.partition(":")[0] not in allowed:
            yield Violation("escaped", f"invocation {ended.number}", ended.error)


def leaves_nothing_in_the_queue(record):
    """At the end the queue is empty."""
    for body in record.left:
        yield Violation("left in the queue", body[:300], "after all the time that it could take")


def does_nothing_after_its_end(record):
    """What an invocation leaves behind does nothing."""
    for ended in record.invocations:
        for what in ended.acted_after_end:
            yield Violation("acted after its end", f"invocation {ended.number}", what)


def adds_up(record):
    """The counts of a report add up to what was asked."""
    for ended in record.invocations:
        if ended.asked != ended.counted:
            what = f"asked {ended.asked}, counted {ended.counted}"
            yield Violation("does not add up", f"invocation {ended.number}", what)


def sums_add_up(record):
    """Each sum of a job adds up, and the same one has the same `outcome_id`."""
    published = defaultdict(set)
    for done in record.sums:
        counts = tuple(done[status] for status in COUNTED)
        published[done["job_id"], done["revision"]].add((done["outcome_id"], counts))
        if done["asked"] != sum(counts):
            yield Violation("sum does not add up", done["job_id"], f"{done}")
    for (job_id, revision), sums in published.items():
        if len(sums) > 1:
            yield Violation("two sums for one revision", job_id, f"revision {revision}: {sorted(sums)}")


def jobs_are_done(record):
    """A job of which everything has ended is published with what it ended in, and no other is published for good."""
    if record.jobs is None:
        return
    endings, letters, jobs = _endings(record), _letters(record), _jobs(record)
    last = {done["job_id"]: done for done in sorted(record.sums, key=lambda done: done["revision"])}
    for job_id, keys in jobs.items():
        if _waits_for_a_person(record, keys):
            continue
        if job_id not in last:
            yield Violation("job not published", job_id, f"{len(keys)} captures have ended, and no sum was published")
            continue
        refused = [key for key in record.refused if _job_of(record, key) == job_id]
        # What lies in the dead-letter queue by then has failed, even if it could not be published.
        published = [{*endings[key].values(), *(["failed"] if letters[key] else [])} for key in keys]
        for what in _wrong_in(last[job_id], published, len(refused)):
            yield Violation("wrong sum", job_id, what)
        is_doubled = any(record.doubled[key] for key in keys)
        if job_id not in record.jobs.values() and last[job_id]["revision"] > 1 and not is_doubled:
            yield Violation("published too early", job_id, f"{last[job_id]}")
    for job_id in last.keys() - jobs.keys():
        yield Violation("wrong sum", job_id, "no one has asked for such a job")


def _wrong_in(done, published, refused):
    """Yield what is wrong in a summary of captures whose published final statuses are these."""
    if done["asked"] != len(published) + refused:
        yield f"{len(published)} and {refused} refused were asked for, and {done['asked']} published"
    for status in COUNTED:
        certain = sum(each == {status} for each in published) + (refused if status == "rejected" else 0)
        possible = certain + sum(status in each and len(each) > 1 for each in published)
        if not certain <= done[status] <= possible:
            yield f"{status} is {done[status]}, and {certain} to {possible} were published"


def notifications_name_their_job(record):
    """Each notification carries the job that its trigger named, or its trigger's ID."""
    if record.jobs is None:
        return
    for notification in record.notifications:
        expected = _job_of(record, key_of_notification(notification))
        if notification["job_id"] != expected:
            yield Violation(
                "wrong job", notification["outcome_id"], f"{notification['job_id']} in place of {expected}"
            )


def reports_only_offline_agents_as_offline(record):
    """No agent that is online is reported as offline."""
    for notification in record.notifications:
        if notification["status"] == "waiting" and notification["agent_id"] not in record.offline:
            yield Violation("reported as offline", notification["agent_id"], f"{notification['outcome_id']}")


def places(waiting, ended, doubled):
    """Yield the captures that are in two places; `waiting` counts those in the queue; `ended` those that ended."""
    for key, count in waiting.items():
        if doubled[key]:
            continue
        if count > 1:
            yield f"{key} waits {count} times"
        if key in ended:
            yield f"{key} waits and has ended"


RULES = (
    ends_once,
    keeps_what_is_refused,
    dead_letters_say_why,
    publishes_what_it_reports,
    same_outcome_same_id,
    asks_no_more_than_it_must,
    asks_once_in_a_delivery,
    keeps_the_cool_down,
    is_in_one_place,
    lets_nothing_escape,
    leaves_nothing_in_the_queue,
    does_nothing_after_its_end,
    adds_up,
    sums_add_up,
    jobs_are_done,
    notifications_name_their_job,
    reports_only_offline_agents_as_offline,
)


def _endings(record):
    """Return for each capture the endings that were published, by their outcome IDs."""
    endings = defaultdict(dict)
    for notification in record.notifications:
        if notification["status"] in record.endings and notification["agent_id"]:
            endings[key_of_notification(notification)][notification["outcome_id"]] = notification["status"]
    return endings


def _job_of(record, key):
    return record.jobs.get(key[:2], key.trigger_id)


def _jobs(record):
    """Return the captures of each job."""
    jobs = defaultdict(list)
    for key in record.keys:
        jobs[_job_of(record, key)].append(key)
    return jobs


def _waits_for_a_person(record, keys):
    """Whether the dead-letter queue holds one of these that has not ended, or is not counted."""
    for letter in record.letters:
        is_failed = letter.reason and letter.reason != "not_counted" and not letter.is_wrapped
        if not is_failed and not (letter.keys | letter.uncounted).isdisjoint(keys):
            return True
    return False


def _letters(record):
    letters = defaultdict(list)
    for letter in record.letters:
        for key in letter.keys:
            letters[key].append(letter)
    return letters


def _has_reason(letter):
    return bool(letter.reason) or letter.is_wrapped or letter.deliveries >= _MOST_RECEIVES


def _is_refused_and_kept(record, published):
    """Whether the report speaks of what is no agent ID, which lies in the dead-letter queue by then."""
    if published.key.agent_id:
        return False
    values = [key.agent_id for key in record.refused if key[:2] == published.key[:2]]
    return any(value in letter.text for value in values for letter in record.letters)


def _unanswered(record, dead, agent_id):
    """Count the requests for an agent of which the function cannot know whether they were served."""
    posts = [post for post in record.posts if post.agent_id == agent_id]
    return sum(post.status is None or post.invocation in dead for post in posts)
