from __future__ import annotations

import mujoco
import numpy as np
import pytest

import r1lite_description.tasks as descriptions
from r1lite_sim import instructions, tasks
from r1lite_sim.experts import make_expert
from r1lite_sim.scene import distractors, table
from r1lite_sim.scene.objects import PALETTE
from r1lite_sim.simulation import Simulation
from r1lite_sim.tasks import blocks_stacking as stacking
from r1lite_sim.tasks import table_bussing as bussing

SEEDS = range(8)


@pytest.fixture(scope="module", params=list(tasks.TASKS))
def staged(request, robot):
    simulation = Simulation(robot, request.param)
    yield simulation
    simulation.close()


@pytest.fixture(scope="module")
def stage(robot):
    """A simulation of a task by name, built once."""
    simulations: dict[str, Simulation] = {}

    def get(name: str) -> Simulation:
        if name not in simulations:
            simulations[name] = Simulation(robot, name)
        return simulations[name]

    yield get
    for simulation in simulations.values():
        simulation.close()


def test_every_task_has_the_substeps_and_the_time_limit_of_its_description(staged):
    description = descriptions.load(staged.task.name)
    assert staged.task.substeps == tuple(description.substeps)
    assert staged.task.time_limit_s == description.time_limit_s


def test_a_seed_stages_the_same_scene_each_time(staged):
    def scene(seed):
        staged.reset(seed)
        return staged.data.qpos.copy(), staged.instruction, staged.render("head").tobytes()

    first, _, third = scene(3), scene(4), scene(3)
    np.testing.assert_array_equal(first[0], third[0])
    assert first[1:] == third[1:]
    assert not np.array_equal(first[0], scene(4)[0])


def test_nothing_overlaps_touches_the_robot_or_moves_at_the_start(staged):
    model, data = staged.model, staged.data
    for seed in SEEDS:
        staged.reset(seed)
        contacts = data.contact.geom[: data.ncon]
        assert data.contact.dist[: data.ncon].min() > -0.0005
        assert not np.any(model.geom_contype[contacts] == 1)
        assert np.abs(data.qvel).max() < 0.05


def test_a_scene_begins_without_points_and_says_what_it_is_about(staged):
    for seed in SEEDS:
        staged.reset(seed)
        assert staged.progress() == 0.0
        assert not staged.success()
        focus = staged.task.focus(staged.data)
        assert table.TABLE_X[0] < focus[0] < table.TABLE_X[1]
        assert table.TABLE_HEIGHT < focus[2] < table.TABLE_HEIGHT + 0.3


def test_scenes_of_lift_are_those_that_the_embedded_policy_knows(stage):
    simulation = stage("lift")
    simulation.reset(5)
    np.testing.assert_allclose(simulation.data.joint("red_block").qpos[:2], [0.554557, -0.117768], atol=1e-5)
    np.testing.assert_allclose(simulation.state()[7:10], [0.175502, 1.272550, -0.562866], atol=1e-5)
    camera = simulation.model.camera("head")
    np.testing.assert_array_equal([*camera.pos, *camera.quat], [0, 0, 0, 0, 1, 0, 0])


@pytest.mark.parametrize("name", ["touch", "blocks_stacking"])
def test_the_head_cameras_mount_is_off_by_a_little_that_does_not_add_up(stage, name):
    simulation = stage(name)
    camera = simulation.model.camera("head").id
    place, quat = simulation.model.cam_pos[camera], simulation.model.cam_quat[camera]
    nominal = np.array([0.0, 1.0, 0.0, 0.0])
    shifts, turns = [], []
    for seed in range(30):
        simulation.reset(seed)
        shifts.append(np.linalg.norm(place))
        turns.append(np.degrees(2 * np.arccos(min(1.0, abs(quat @ nominal)))))
    assert 0 < min(shifts)
    assert max(shifts) <= table.CAMERA_SHIFT + 1e-9
    assert max(turns) <= table.CAMERA_TURN_DEG + 1e-6
    assert max(turns) > table.CAMERA_TURN_DEG / 2


def test_none_to_three_distractors_lie_about_in_colours_of_their_own(stage):
    simulation = stage("blocks_stacking")
    counts = set()
    for seed in range(20):
        simulation.reset(seed)
        shown = [name for name in distractors.SHAPES if simulation.data.body(name).xpos[2] > table.TABLE_HEIGHT]
        counts.add(len(shown))
    assert counts == {0, 1, 2, 3}


def test_colours_of_the_tower_are_drawn_and_can_be_named(stage):
    simulation = stage("blocks_stacking")
    drawn = set()
    for seed in range(6):
        simulation.reset(seed)
        drawn.add(simulation.task.colours)
    assert len(drawn) > 3
    try:
        simulation.reset(0, colours=("red", "green", "blue"))
        assert simulation.instruction == "stack the green block on the red block and the blue block on the green block"
    finally:
        simulation.reset(0, colours=None)


@pytest.fixture(scope="module")
def drawn_lift(robot):
    simulation = Simulation(robot, "lift", task_options={"colour": "random", "side": "random"})
    yield simulation
    simulation.close()


def test_a_drawn_lift_is_the_scene_of_the_drawn_names(stage, drawn_lift):
    named = stage("lift")
    instructions: dict[int, str] = {}
    try:
        for seed in (*SEEDS, *SEEDS):
            drawn_lift.reset(seed)
            named.reset(seed, colour=drawn_lift.task.colour, side=drawn_lift.task.side)
            assert drawn_lift.instruction == named.instruction
            np.testing.assert_array_equal(drawn_lift.data.qpos, named.data.qpos)
            assert instructions.setdefault(seed, drawn_lift.instruction) == drawn_lift.instruction
    finally:
        named.reset(0, colour="red", side="right")
    assert len(set(instructions.values())) > 3


def test_one_option_of_lift_can_be_named_and_the_other_drawn(stage):
    simulation = stage("lift")
    try:
        simulation.reset(0, colour="blue", side="random")
        sides = set()
        for seed in SEEDS:
            simulation.reset(seed)
            sides.add(simulation.task.side)
            assert simulation.task.colour == "blue"
        assert sides == {"left", "right"}
    finally:
        simulation.reset(0, colour="red", side="right")


def test_progress_of_lift_follows_the_drawn_block_and_arm(drawn_lift):
    drawn_lift.reset(5)
    assert drawn_lift.task.side == "left"
    expert = make_expert("lift", drawn_lift)
    while not drawn_lift.success() and drawn_lift.time_s < drawn_lift.task.time_limit_s:
        drawn_lift.command(expert.act())
        drawn_lift.step(drawn_lift.robot.period_s)
    assert drawn_lift.success()


def test_touch_names_a_block_and_an_arm(stage):
    simulation = stage("touch")
    try:
        simulation.reset(1, colour="white", side="left")
        assert simulation.instruction == "touch the white block with the left arm"
        assert named(simulation, "random", "random") == named(simulation, None, None)
    finally:
        simulation.reset(0, colour=None, side=None)


def named(simulation, colour, side):
    """Instructions of a few scenes."""
    simulation.reset(0, colour=colour, side=side)
    instructions = []
    for seed in range(8):
        simulation.reset(seed)
        instructions.append(simulation.instruction)
    assert len(set(instructions)) > 3
    return instructions


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("touch", {"colour": "pink"}, "colour is 'pink'; allowed: red"),
        ("touch", {"side": "both"}, "side is 'both'; allowed: left, right"),
        ("blocks_stacking", {"colours": ["red", "red", "blue"]}, "three different ones"),
        ("blocks_stacking", {"side": "left"}, "unexpected keyword argument 'side'"),
        ("table_bussing", {"colour": "red"}, "table_bussing"),
        ("tidy", {}, "no task 'tidy'; known tasks: lift"),
    ],
)
def test_wrong_options_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        tasks.make(name, **options)


@pytest.mark.parametrize("task", tasks.TASKS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"colour": "white", "side": "left"},
        {"colour": "yellow"},
        {"side": "both"},
        {"colours": ("blue", "red", "green")},
        {"colours": ("blue", "red", "blue")},
        {"colours": ("blue", "red", "green", "blue")},
    ],
)
def test_the_sentence_and_what_is_allowed_are_known_without_building_the_task(task, options):
    defaults = {name: instructions.STAGED[name] for name in tasks.option_defaults(task)}
    try:
        instruction = tasks.make(task, **{**defaults, **options}).instruction
    except ValueError:
        with pytest.raises(ValueError):
            instructions.instruction(task, options)
    else:
        assert instructions.instruction(task, options) == instruction


def test_every_colour_that_an_instruction_names_has_its_paint():
    assert tuple(PALETTE) == instructions.COLOURS


def test_a_task_without_options_refuses_them_at_a_reset(stage):
    with pytest.raises(ValueError, match="'table_bussing' has no options; got colour"):
        stage("table_bussing").reset(0, colour="red")


def test_options_of_a_task_have_defaults():
    assert tasks.option_defaults("lift") == {"colour": "red", "side": "right"}
    assert tasks.option_defaults("microwave_operation") == {}


def place(simulation, body, position, quat=(1, 0, 0, 0)):
    simulation.data.joint(body).qpos[:] = [*position, *quat]
    simulation.data.joint(body).qvel[:] = 0


def test_a_tower_counts_when_it_stands_by_itself_and_a_point_stays_when_it_falls(stage):
    simulation = stage("blocks_stacking")
    simulation.reset(0)
    base = simulation.data.body(stacking.FIRST).xpos.copy()
    place(simulation, stacking.SECOND, base + [0.005, 0, 0.0402])
    simulation.step(0.3)
    assert simulation.task.done == ("second_lifted", "second_on_first")
    assert not simulation.success()
    place(simulation, stacking.THIRD, base + [0, 0.004, 0.0804])
    simulation.step(0.3)
    assert simulation.success()
    assert simulation.progress() == 1.0
    place(simulation, stacking.THIRD, base + [0, 0.3, 0.0])
    simulation.step(0.3)
    assert not simulation.success()
    assert simulation.progress() == 1.0


def test_a_block_in_the_air_is_not_lifted_unless_the_robot_has_it(stage):
    simulation = stage("blocks_stacking")
    simulation.reset(0)
    place(simulation, stacking.SECOND, [0.6, 0.0, 1.0])
    simulation.step(0.01)
    assert simulation.progress() == 0.0


def test_things_of_the_desk_count_in_any_order(stage):
    simulation = stage("table_bussing")
    simulation.reset(0)
    task, data = simulation.task, simulation.data
    cup = data.body(bussing.HOLDER).xpos
    upright = (np.cos(np.pi / 4), 0, -np.sin(np.pi / 4), 0)
    for name, x in zip(bussing.PENS, (-0.015, 0.015), strict=True):
        place(simulation, name, cup + [x, 0, 0.075], upright)
    simulation.step(1.0)
    assert task.done == ("pens_in_holder",)
    # The pens beside the holder do not count any more, but their point was earned.
    place(simulation, bussing.PENS[0], [0.5, 0.0, table.TABLE_HEIGHT + 0.009])
    simulation.step(0.3)
    assert not task.in_holder(data, bussing.PENS[0])
    assert task.done == ("pens_in_holder",)


def test_a_closed_door_counts_only_with_the_plate_behind_it(stage):
    simulation = stage("microwave_operation")
    simulation.reset(0)
    task, data = simulation.task, simulation.data
    assert task.door_angle(data) < np.radians(1)
    assert "door_closed" not in task.done
    microwave = data.body("microwave")
    inside = microwave.xpos + microwave.xmat.reshape(3, 3) @ [0.135, 0, 0.0135]
    quat = np.empty(4)
    mujoco.mju_mat2Quat(quat, microwave.xmat)
    place(simulation, "plate", inside, quat)
    place(simulation, "food", inside + [0, 0, 0.03], quat)
    simulation.step(0.5)
    assert simulation.success()
    assert task.done == ("food_on_plate", "plate_in_microwave", "door_closed")
    data.joint("microwave_door").qpos[:] = np.radians(80)
    simulation.step(0.1)
    assert not simulation.success()
    assert simulation.progress() == 1.0


@pytest.mark.parametrize(("pull_n", "opens"), [(2.0, False), (5.0, True)])
def test_the_latch_holds_the_door_against_a_light_pull(stage, pull_n, opens):
    simulation = stage("microwave_operation")
    simulation.reset(0)
    handle = simulation.data.geom("microwave_handle").xpos.copy()
    for _ in range(150):
        force = np.array([-pull_n, 0, 0])
        door = simulation.data.body("microwave_door")
        door.xfrc_applied[:] = *force, *np.cross(handle - door.xipos, force)
        simulation.step(0.002)
    assert (simulation.task.door_angle(simulation.data) > np.radians(5)) == opens
