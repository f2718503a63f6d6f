from __future__ import annotations

import pytest

from depthvla_control.arbiter import Mode
from depthvla_control.operator_input import (
    ANSWER_LIMIT_NS,
    KEYS,
    NO_BUTTON,
    REPEAT_LIMIT_NS,
    SCORING,
    Action,
    Console,
    Joystick,
    Keys,
    Scorer,
    next_substep,
)
from depthvla_control.refusal import Reason, Refusal

SECOND = 10**9
BUTTONS = {
    Action.STOP: 1,
    Action.TAKE_OVER: 5,
    Action.GIVE_BACK: 4,
    Action.ARM: 7,
    Action.DISARM: 6,
    Action.RESET_FAULT: NO_BUTTON,
}


def pad(*held):
    return [int(button in held) for button in range(11)]


def presses(joystick, *states):
    """Actions of each state after a first one with nothing held."""
    joystick.update(pad(), 0)
    return [joystick.update(pad(*held), 0) for held in states]


# Keys


def test_keys_that_arrive_together_keep_their_order():
    assert Keys().feed("at p") == list("at p")


@pytest.mark.parametrize(
    "sequence",
    ["\x1b[A", "\x1b[D", "\x1bOP", "\x1b[3~", "\x1b[1;5D", "\x1b[15~", "\x1ba", "\x1b\x1b[A"],
    ids=["up", "left", "F1", "delete", "ctrl left", "F5", "alt a", "alt up"],
)
def test_cursor_and_function_keys_are_no_actions_even_where_they_are_split(sequence):
    assert Keys().feed(sequence + "t") == ["t"]
    keys = Keys()
    assert [keys.feed(character) for character in sequence] == [[]] * len(sequence)
    assert keys.feed("t") == ["t"]


def test_pasted_text_is_no_keys_but_for_its_spaces_which_stop():
    keys = Keys()
    assert keys.feed("\x1b[200~arm it, then\n\x1b[A give\x1b[201~p") == [" ", " ", " ", "p"]
    pasted = "\x1b[200~tap\x1b[201~"
    assert [keys.feed(character) for character in pasted] == [[]] * len(pasted)
    assert keys.feed("t") == ["t"]


@pytest.mark.parametrize("begun", ["\x1b", "\x1b[", "\x1bO", "\x1b[1;"])
def test_space_stops_even_within_a_sequence(begun):
    keys = Keys()
    assert keys.feed(begun + " ") == [" "]
    assert keys.feed("t") == ["t"]


# Scoring


def test_scoring_keys_have_actions_of_their_own_and_none_of_a_joystick():
    assert [KEYS[key] for key in "emusf"] == list(SCORING)
    assert not set(SCORING) & set(BUTTONS)


def test_key_that_is_held_marks_once():
    scorer = Scorer()
    times_ns = [0, *range(REPEAT_LIMIT_NS, REPEAT_LIMIT_NS + SECOND, SECOND // 30)]
    assert [scorer.pressed(Action.MARK, now_ns) for now_ns in times_ns] == [True] + [False] * (len(times_ns) - 1)
    assert scorer.pressed(Action.MARK, times_ns[-1] + REPEAT_LIMIT_NS + 1)


def test_another_scoring_key_is_not_held_back():
    scorer = Scorer()
    assert [scorer.pressed(action, 0) for action in SCORING] == [True] * len(SCORING)


def test_substeps_are_marked_in_their_order_and_after_an_undo_again():
    substeps = ["grasp", "lift"]
    assert [next_substep(substeps, marked) for marked in ([], ["grasp"], [])] == ["grasp", "lift", "grasp"]
    with pytest.raises(ValueError, match="all 2 substeps are marked"):
        next_substep(substeps, ["grasp", "lift"])


def test_substeps_without_names_are_numbered():
    assert [next_substep([], marked) for marked in ([], ["1"], ["1", "2"])] == ["1", "2", "3"]


def test_request_to_the_recorder_without_an_answer_is_overdue_once():
    scorer = Scorer()
    answered, late = scorer.new(Action.MARK, 0), scorer.new(Action.UNDO, 0)
    scorer.forget(answered)
    times_ns = (ANSWER_LIMIT_NS, ANSWER_LIMIT_NS + 1, ANSWER_LIMIT_NS + 2)
    assert [scorer.overdue(now_ns) for now_ns in times_ns] == [[], [late], []]


# Joystick


def test_held_button_fires_once():
    assert presses(Joystick(BUTTONS), [5], [5], [5], [], [5]) == [
        [Action.TAKE_OVER],
        [],
        [],
        [],
        [Action.TAKE_OVER],
    ]


def test_button_held_at_the_start_does_not_fire_until_it_is_pressed_again():
    joystick = Joystick(BUTTONS)
    assert [joystick.update(pad(*held), 0) for held in ([7], [7], [], [7])] == [[], [], [], [Action.ARM]]


def test_stop_comes_alone():
    assert presses(Joystick(BUTTONS), [1, 5, 7]) == [[Action.STOP]]
    assert presses(Joystick(BUTTONS, hold_to_teleop=True), [5], [1]) == [[Action.HOLD], [Action.STOP]]


def test_button_without_a_number_never_fires():
    assert presses(Joystick({Action.RESET_FAULT: NO_BUTTON}), range(11)) == [[]]


def test_joystick_with_too_few_buttons_is_refused_naming_button_and_count():
    refusal = Joystick(BUTTONS).update([0] * 7, 0)
    assert isinstance(refusal, Refusal) and refusal.reason is Reason.WRONG_COUNT
    assert str(refusal) == "button_arm is 7, but the joystick has 7 buttons; allowed: -1 to 6"


def test_one_button_for_two_actions_is_refused():
    with pytest.raises(ValueError, match="button_stop and button_arm are both 1"):
        Joystick({**BUTTONS, Action.ARM: 1})


def test_dead_man_without_a_button_is_refused():
    with pytest.raises(ValueError, match="hold_to_teleop is true, but button_take_over is -1"):
        Joystick({**BUTTONS, Action.TAKE_OVER: NO_BUTTON}, hold_to_teleop=True)


def test_dead_man_button_acts_on_both_edges():
    joystick = Joystick(BUTTONS, hold_to_teleop=True)
    assert presses(joystick, [5], [5], []) == [[Action.HOLD], [], [Action.RELEASE]]


def test_held_dead_man_button_of_a_silent_joystick_is_noticed_once():
    joystick = Joystick(BUTTONS, hold_to_teleop=True, silence_limit_ns=SECOND)
    joystick.update(pad(), 0)
    assert not joystick.fell_silent(5 * SECOND)  # nothing is held
    joystick.update(pad(5), 5 * SECOND)
    assert not joystick.fell_silent(6 * SECOND)
    assert joystick.fell_silent(6 * SECOND + 1)
    assert not joystick.fell_silent(9 * SECOND)
    # Back again with the button still down: it has to be pressed anew.
    assert joystick.update(pad(5), 9 * SECOND) == []


def test_silence_means_nothing_without_a_dead_man_button_or_a_limit():
    for joystick in (Joystick(BUTTONS, silence_limit_ns=SECOND), Joystick(BUTTONS, hold_to_teleop=True)):
        presses(joystick, [5])
        assert not joystick.fell_silent(100 * SECOND)


# Console


def test_key_that_repeats_itself_asks_once_until_it_is_answered():
    console = Console()
    request = console.ask(Action.ARM, 0)
    assert request.action is Action.ARM
    assert console.ask(Action.ARM, 1) is None
    console.answered(request, False, 2)
    assert console.ask(Action.ARM, 3) is not None


def test_stop_is_asked_whatever_is_pending():
    console = Console()
    for action in (Action.ARM, Action.TAKE_OVER, Action.STOP, Action.STOP):
        assert console.ask(action, 0).action is action


def test_changing_ones_mind_is_asked_in_full():
    console = Console()
    actions = (Action.TAKE_OVER, Action.GIVE_BACK, Action.TAKE_OVER)
    assert [console.ask(action, 0).action for action in actions] == list(actions)


@pytest.mark.parametrize("action", [Action.TAKE_OVER, Action.GIVE_BACK, Action.ARM, Action.HOLD])
def test_stop_that_an_older_request_may_have_overtaken_is_said_again(action):
    console = Console()
    older = console.ask(action, 0)
    stop = console.ask(Action.STOP, 1)
    assert console.answered(stop, True, 2) is None
    again = console.answered(older, True, 3)
    assert again.action is Action.STOP
    assert console.answered(again, True, 4) is None


def test_stop_is_not_said_again_after_a_refusal_or_a_newer_request():
    console = Console()
    older = console.ask(Action.TAKE_OVER, 0)
    console.ask(Action.STOP, 1)
    assert console.answered(older, False, 2) is None
    older = console.ask(Action.TAKE_OVER, 3)
    console.ask(Action.STOP, 4)
    console.ask(Action.GIVE_BACK, 5)
    assert console.answered(older, True, 6) is None


def test_unanswered_request_is_told_once_and_may_be_repeated():
    console = Console()
    request = console.ask(Action.ARM, 0)
    assert console.overdue(ANSWER_LIMIT_NS) == []
    assert console.overdue(ANSWER_LIMIT_NS + 1) == [request]
    assert console.overdue(ANSWER_LIMIT_NS + 2) == []
    assert console.ask(Action.ARM, ANSWER_LIMIT_NS + 3) is not None


def held(success=True):
    console = Console()
    console.mode_changed(Mode.HOLD, Mode.POLICY)
    assert console.answered(console.ask(Action.HOLD, 0), success, 1) is None
    if success:
        console.mode_changed(Mode.POLICY, Mode.TELEOP)
    return console


def test_letting_go_gives_back():
    console = held()
    assert console.holding
    assert console.ask(Action.RELEASE, 2).action is Action.GIVE_BACK
    assert not console.holding
    assert console.ask(Action.RELEASE, 3) is None


def test_letting_go_stops_where_the_policy_cannot_take_over():
    console = held()
    give_back = console.ask(Action.RELEASE, 2)
    stop = console.answered(give_back, False, 3)
    assert stop.action is Action.STOP
    assert console.answered(stop, True, 4) is None
    # A key that gives back is refused without further ado: the person is still there.
    assert console.answered(console.ask(Action.GIVE_BACK, 5), False, 6) is None


def test_taking_over_again_at_once_is_not_stopped_by_a_refused_give_back():
    console = held()
    give_back = console.ask(Action.RELEASE, 2)
    console.ask(Action.HOLD, 3)
    assert console.answered(give_back, False, 4) is None


def test_letting_go_early_gives_back_once_the_take_over_is_answered():
    console = Console()
    request = console.ask(Action.HOLD, 0)
    assert console.ask(Action.RELEASE, 1) is None
    assert console.answered(request, True, 2).action is Action.GIVE_BACK


def test_pressing_again_before_the_answer_keeps_holding():
    console = Console()
    request = console.ask(Action.HOLD, 0)
    console.ask(Action.RELEASE, 1)
    console.ask(Action.HOLD, 2)
    assert console.answered(request, True, 3) is None
    assert console.ask(Action.RELEASE, 4).action is Action.GIVE_BACK


def test_letting_go_after_a_refused_take_over_does_not_start_the_policy():
    assert held(success=False).ask(Action.RELEASE, 2) is None
    console = Console()
    request = console.ask(Action.HOLD, 0)
    assert console.ask(Action.RELEASE, 1) is None
    assert console.answered(request, False, 2) is None


@pytest.mark.parametrize("action", [Action.STOP, Action.DISARM, Action.TAKE_OVER, Action.GIVE_BACK])
def test_letting_go_asks_for_nothing_once_another_request_decided(action):
    console = held()
    console.ask(action, 2)
    assert console.ask(Action.RELEASE, 3) is None


@pytest.mark.parametrize("mode", [Mode.HOLD, Mode.FAULT, Mode.DISARMED])
def test_letting_go_asks_for_nothing_once_somebody_else_ended_teleoperation(mode):
    console = held()
    console.mode_changed(Mode.TELEOP, mode)
    assert console.ask(Action.RELEASE, 3) is None


def test_mode_change_that_the_take_over_follows_does_not_end_the_hold():
    console = Console()
    console.mode_changed(Mode.HOLD, Mode.TELEOP)
    request = console.ask(Action.HOLD, 0)
    console.mode_changed(Mode.TELEOP, Mode.HOLD)
    console.answered(request, True, 1)
    assert console.ask(Action.RELEASE, 2).action is Action.GIVE_BACK


def test_request_that_nobody_was_there_for_leaves_nothing_pending():
    console = Console()
    console.not_sent(console.ask(Action.HOLD, 0))
    assert console.overdue(10 * SECOND) == []
    assert console.ask(Action.RELEASE, 1) is None
