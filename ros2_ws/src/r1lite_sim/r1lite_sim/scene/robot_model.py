"""The robot as MuJoCo sees it: the URDF of r1lite_description, loaded into an `MjSpec`.

Joint origins, limits, masses and shapes come from the URDF alone. Added here is what a URDF cannot say: cameras,
gravity compensation, servos and the posture in which the chassis and the torso are held.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import mujoco
import numpy as np
import xacro

from r1lite_description.robot import Camera, Robot
from r1lite_description.share import urdf_file

# Torso posture of a third-party deployment on real robots: chest level, arm bases 0.777 m and head camera 1.286 m high.
TORSO_POSTURE = {"torso_joint1": -0.657, "torso_joint2": 1.516, "torso_joint3": 0.845}

# Vertical field of view, by the kind of camera: a head camera of about 62 degrees, the D405 of 58 (data sheet).
FOVY_DEG = {"head": 62.0, "wrist_left": 58.0, "wrist_right": 58.0}

# Servo stiffness of the six arm joints [Nm/rad] and rotor inertia [kg m^2]: stiff enough that the arm trails its
# reference by less than one control period, soft enough for the joint torques of the URDF.
ARM_STIFFNESS = (900.0, 1200.0, 800.0, 300.0, 200.0, 150.0)
ARM_ROTOR_INERTIA = (0.10, 0.10, 0.08, 0.03, 0.02, 0.02)
GRIPPER_STIFFNESS = 4000.0  # N/m of opening
GRIPPER_FORCE = 40.0  # N, below the 100 N rating: a wooden cube needs no more
GRIPPER_MASS = 0.3  # kg, reflected inertia of the drive on each finger

# Contact bits. The robot touches the scene, never itself: its simplified shapes overlap at the joints.
ROBOT_CONTACT = 1
SCENE_CONTACT = 2
COLLISION_GROUP = 3  # geom group of shapes that are not drawn


def description_xml(path: str | Path | None = None) -> str:
    """The robot's URDF as text.

    Raises:
        FileNotFoundError: there is no such file.
    """
    path = Path(path) if path else urdf_file()
    if not path.exists():
        raise FileNotFoundError(f"robot description {path} does not exist")
    return xacro.process_file(str(path)).toxml()


def robot_spec(robot: Robot, urdf: str | None = None) -> tuple[mujoco.MjSpec, dict[str, float]]:
    """The robot alone, base fixed, with actuators named like the entries of `robot.joint_names`.

    Args:
        robot: joints, grippers and cameras; its names must occur in the URDF.
        urdf: URDF text; that of the R1 Lite when None.

    Returns:
        The spec, and the positions [rad] of the joints that are held rigid (wheels and torso).

    Raises:
        ValueError: a joint or frame of `robot` is not in the URDF.
    """
    root = ElementTree.fromstring(urdf or description_xml())
    extension = ElementTree.SubElement(root, "mujoco")
    ElementTree.SubElement(extension, "compiler", {"fusestatic": "false", "discardvisual": "false"})
    spec = mujoco.MjSpec.from_string(ElementTree.tostring(root, encoding="unicode"))

    for geom in spec.geoms:
        drawn = geom.contype == 0 and geom.conaffinity == 0
        if not drawn:
            geom.group, geom.contype, geom.conaffinity = COLLISION_GROUP, ROBOT_CONTACT, 0
            geom.name = f"{geom.parent.name}_{len([g for g in geom.parent.geoms if g.name])}"
    moving = {name for limb in robot.limbs for name in (*limb.joints, *finger_joints(limb.name))}
    missing = sorted(moving - {joint.name for joint in spec.joints})
    if missing:
        raise ValueError(f"joints {missing} are not in the URDF of {robot.name!r}")
    held = {}
    for joint in list(spec.joints):
        if joint.name not in moving:
            held[joint.name] = TORSO_POSTURE.get(joint.name, 0.0)
            _hold(spec, joint, held[joint.name])
    for body in spec.bodies:
        body.gravcomp = 1.0
    for limb in robot.limbs:
        for name, stiffness, inertia in zip(limb.joints, ARM_STIFFNESS, ARM_ROTOR_INERTIA, strict=True):
            joint = spec.joint(name)
            joint.armature = inertia
            servo = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
            servo.set_to_position(kp=stiffness, dampratio=1.0)
        _add_gripper(spec, limb.name, limb.gripper)
    for camera in robot.cameras:
        _add_camera(spec, camera)
    return spec, held


def finger_joints(limb: str) -> tuple[str, str]:
    """Names of the two finger slides of a limb: travel 0..0.05 m and -0.05..0 m."""
    return f"{limb}_gripper_finger_joint1", f"{limb}_gripper_finger_joint2"


def finger_geoms(limb: str) -> tuple[str, str]:
    """Names of the collision shapes of the two fingers of a limb."""
    return f"{limb}_gripper_finger_link1_0", f"{limb}_gripper_finger_link2_0"


def _hold(spec: mujoco.MjSpec, joint, position: float) -> None:
    """Turn the body of a hinge by `position` and make it rigid: a held joint costs no degree of freedom."""
    turn, quat = np.empty(4), np.empty(4)
    mujoco.mju_axisAngle2Quat(turn, np.asarray(joint.axis), position)
    mujoco.mju_mulQuat(quat, np.asarray(joint.parent.quat), turn)
    joint.parent.quat = quat
    spec.delete(joint)


def _add_gripper(spec: mujoco.MjSpec, limb: str, name: str) -> None:
    """One drive for both fingers. Its length is the opening in metres; the URDF's mimic keeps the fingers symmetric."""
    first, second = finger_joints(limb)
    tendon = spec.add_tendon(name=name)
    tendon.wrap_joint(first, 1.0)
    tendon.wrap_joint(second, -1.0)
    for joint in (first, second):
        spec.joint(joint).armature = GRIPPER_MASS
    servo = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_TENDON)
    servo.set_to_position(kp=GRIPPER_STIFFNESS, kv=2 * (GRIPPER_STIFFNESS * GRIPPER_MASS / 2) ** 0.5)
    servo.forcelimited, servo.forcerange = True, [-GRIPPER_FORCE, GRIPPER_FORCE]
    for geom in finger_geoms(limb):
        pad = spec.geom(geom)
        pad.condim, pad.friction, pad.priority = 4, [1.5, 0.05, 0.0001], 1
        pad.solref = [0.005, 1]  # stiff: a squeezed block must not sink into the pads


def _add_camera(spec: mujoco.MjSpec, camera: Camera) -> None:
    body = spec.body(camera.frame_id)
    if body is None or camera.name not in FOVY_DEG:
        raise ValueError(
            f"camera {camera.name!r} needs a frame {camera.frame_id!r} in the URDF and a field of view; "
            f"known fields of view: {', '.join(FOVY_DEG)}"
        )
    # An optical frame looks along z with y down; a MuJoCo camera looks along -z with y up.
    body.add_camera(name=camera.name, quat=[0, 1, 0, 0], fovy=FOVY_DEG[camera.name])
