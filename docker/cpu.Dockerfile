# What needs neither a network nor its weights: executor, recorder, console, viewer, RViz, preflight. No torch, so no CUDA.
#   docker build -f docker/cpu.Dockerfile --build-arg USER_UID="$(id -u)" -t depthvla/cpu .
# Pinned by tag: a digest (ros@sha256:...) belongs here as soon as one has been built and tried.
ARG ROS_IMAGE=ros:jazzy-ros-base-noble
FROM ${ROS_IMAGE}

SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# What tools/setup.sh would ask for, and RViz.
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
      ros-jazzy-rviz-2d-overlay-plugins \
      ros-jazzy-rviz2 \
    && rm -rf /var/lib/apt/lists/*

# Fast DDS's shared memory is only shared by processes of one user: take the uid of whoever else publishes on this computer.
ARG USER_UID=1000
ARG USER_GID=1000
RUN if id ubuntu >/dev/null 2>&1; then userdel --remove ubuntu; fi \
    && groupadd --non-unique --gid "$USER_GID" depthvla \
    && useradd --non-unique --uid "$USER_UID" --gid "$USER_GID" --create-home --shell /bin/bash depthvla \
    && install -d -o depthvla -g depthvla /workspace /data
USER ${USER_UID}:${USER_GID}
WORKDIR /workspace

# Packages first: a change of the code does not install them again.
COPY --chown=depthvla:depthvla requirements.txt requirements-robot.txt requirements-dev.txt \
    requirements-ros.txt constraints.txt ./
COPY --chown=depthvla:depthvla tools tools
COPY --chown=depthvla:depthvla ros2_ws/src/depthvla_msgs ros2_ws/src/depthvla_msgs
RUN sed -i -E '/^(torch|transformers|accelerate)==/d' requirements.txt \
    && . /opt/ros/jazzy/setup.bash && tools/setup.sh

COPY --chown=depthvla:depthvla ros2_ws/src ros2_ws/src
COPY --chown=depthvla:depthvla docker docker
RUN . /opt/ros/jazzy/setup.bash && tools/setup.sh

ENV RMW_IMPLEMENTATION=rmw_fastrtps_cpp \
    MUJOCO_GL=egl
ENTRYPOINT ["/workspace/docker/entrypoint.sh"]
CMD ["depthvla", "preflight", "--help"]
