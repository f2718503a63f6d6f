# The whole graph on a computer with an NVIDIA GPU, or without one on its CPU: policy, executor, recorder, viewer, simulator.
#   docker build -f docker/policy-host.Dockerfile --build-arg USER_UID="$(id -u)" -t depthvla/policy-host .
# CUDA comes with the torch wheel; the computer needs NVIDIA's driver and container toolkit. Weights are mounted at /models.
# Pinned by tag: a digest (ros@sha256:...) belongs here as soon as one has been built and tried.
ARG ROS_IMAGE=ros:jazzy-ros-base-noble
FROM ${ROS_IMAGE}

SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# What tools/setup.sh would ask for, in a layer of its own.
RUN apt-get update && apt-get install -y --no-install-recommends \
      cmake \
      g++ \
      libegl1 \
      libgl1 \
      libgl1-mesa-dri \
      make \
      python3-colcon-common-extensions \
      python3-opencv \
      python3.12-dev \
      python3.12-venv \
      ros-jazzy-compressed-image-transport \
    && rm -rf /var/lib/apt/lists/*

# Fast DDS's shared memory is only shared by processes of one user: take the uid of whoever else publishes on this computer.
ARG USER_UID=1000
ARG USER_GID=1000
RUN if id ubuntu >/dev/null 2>&1; then userdel --remove ubuntu; fi \
    && groupadd --non-unique --gid "$USER_GID" depthvla \
    && useradd --non-unique --uid "$USER_UID" --gid "$USER_GID" --create-home --shell /bin/bash depthvla \
    && install -d -o depthvla -g depthvla /workspace /models /data
USER ${USER_UID}:${USER_GID}
WORKDIR /workspace

# Packages first: a change of the code does not install them again.
COPY --chown=depthvla:depthvla requirements.txt requirements-robot.txt requirements-dev.txt \
    requirements-ros.txt constraints.txt ./
COPY --chown=depthvla:depthvla tools tools
COPY --chown=depthvla:depthvla ros2_ws/src/depthvla_msgs ros2_ws/src/depthvla_msgs
RUN . /opt/ros/jazzy/setup.bash && tools/setup.sh

COPY --chown=depthvla:depthvla ros2_ws/src ros2_ws/src
COPY --chown=depthvla:depthvla models models
COPY --chown=depthvla:depthvla docker docker
COPY --chown=depthvla:depthvla pyproject.toml Makefile LICENSE ./
RUN . /opt/ros/jazzy/setup.bash && tools/setup.sh

ENV RMW_IMPLEMENTATION=rmw_fastrtps_cpp \
    MUJOCO_GL=egl \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
ENTRYPOINT ["/workspace/docker/entrypoint.sh"]
CMD ["ros2", "launch", "r1lite_bringup", "depthvla.launch.py", "--show-args"]
