"""A control loop for a policy that `metarl export` wrote. It needs numpy and onnxruntime, nothing else."""

import json
import time

import numpy as np
import onnxruntime

FORMAT = 2  # of the file, in which a command is MuJoCo's control signal


class Policy:
    """The policy; `about` has names, units, ranges, the home pose and the control step dt, s."""

    def __init__(self, path):
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.about = json.loads(self.session.get_modelmeta().custom_metadata_map["metarl"])
        if self.about["format"] != FORMAT:
            raise ValueError(f"{path} has format {self.about['format']}, this loop reads {FORMAT}: export it anew")
        self.inputs = {i.name: np.zeros(i.shape, np.float32) for i in self.session.get_inputs()}
        self.inputs |= {name: np.array([start], np.float32) for name, start in self.about["states"].items()}
        self.outputs = [o.name for o in self.session.get_outputs()]

    def act(self, observation, reward=0.0, start=False, end=False, fallen=False):
        """The command [act], MuJoCo's control signals: `data.ctrl[:] = command`. For a real motor see `targets`.

        After an episode it is called once more, with end=True, for a policy that remembers. fallen: the robot fell in
        the last step and stands again, in the same episode.
        """
        started = start or fallen
        given = {"observation": observation, "previous_reward": reward, "episode_start": started, "episode_end": end}
        for name in given.keys() & self.inputs.keys():
            self.inputs[name][:] = given[name]
        if start and "previous_action" in self.inputs:
            self.inputs["previous_action"] = np.zeros_like(self.inputs["previous_action"])
        result = dict(zip(self.outputs, self.session.run(self.outputs, self.inputs), strict=True))
        self.inputs |= {name: result["next_" + name] for name in self.about["states"]}
        self.inputs |= {name: result["action"] for name in ["previous_action"] if name in self.inputs}
        return result["command"][0]

    def targets(self, command):
        """What a command asks of each joint, [act], in the units of `about["command"]`: an angle, a speed, a torque."""
        return np.array(self.about["command"]["zero"]) + np.array(self.about["command"]["size"]) * command


def episode(policy, robot):
    """robot.reset() -> observation; robot.step(command) -> observation, reward, whether the episode is over."""
    observation, reward, due = robot.reset(), 0.0, time.monotonic()
    for step in range(policy.about["horizon"]):
        observation, reward, over = robot.step(policy.act(observation, reward, start=step == 0))
        due += policy.about["dt"]
        time.sleep(max(0.0, due - time.monotonic()))
        if over:
            break
    policy.act(observation, reward, end=True)
