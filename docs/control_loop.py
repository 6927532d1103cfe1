"""A control loop for a policy that `metarl export` wrote. It needs numpy and onnxruntime, nothing else."""

import json
import time

import numpy as np
import onnxruntime

FORMAT = 3  # of the file, in which a memory says how many episodes it is carried across

LARGEST = float(np.finfo(np.float32).max)


class Policy:
    """The policy; `about` has names, units, ranges, the home pose and the control step dt, s."""

    def __init__(self, path, adaptations=None):
        """adaptations: episodes of one task across which a memory is carried; None: as in the run's evaluation."""
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.about = json.loads(self.session.get_modelmeta().custom_metadata_map["metarl"])
        if self.about["format"] != FORMAT:
            raise ValueError(f"{path} has format {self.about['format']}, this loop reads {FORMAT}: export it anew")
        self.adaptations = self.about["adaptations"] if adaptations is None else adaptations
        self.outputs = [o.name for o in self.session.get_outputs()]
        self.forget()

    def forget(self):
        """Begin anew, as for another task or robot."""
        self.inputs = {i.name: np.zeros(i.shape, np.float32) for i in self.session.get_inputs()}
        self.memory = {name: np.array([start], np.float32) for name, start in self.about["states"].items()}
        self.inputs |= self.memory
        self.episodes, self.action = 0, None

    def act(self, observation, reward=0.0, start=False, end=False, fallen=False):
        """The command [act], MuJoCo's control signals: `data.ctrl[:] = command`. For a real motor see `targets`.

        `action` is then the policy's own output, which logs hold. After an episode it is called once more, with
        end=True, for a policy that remembers: an episode starts from what the memory was at the end of the one before,
        and after `adaptations` episodes always from the same. fallen: the robot fell in the last step and stands
        again, in the same episode. ValueError for what no sensor can have read; the memory is then as it was.
        """
        self._require(observation, reward)
        if start:
            self.inputs |= self.memory
        started = start or fallen
        given = {"observation": observation, "previous_reward": reward, "episode_start": started, "episode_end": end}
        for name in given.keys() & self.inputs.keys():
            self.inputs[name][:] = given[name]
        if start and "previous_action" in self.inputs:
            self.inputs["previous_action"] = np.zeros_like(self.inputs["previous_action"])
        result = dict(zip(self.outputs, self.session.run(self.outputs, self.inputs), strict=True))
        states = {name: result["next_" + name] for name in self.about["states"]}
        self.inputs |= states
        self.inputs |= {name: result["action"] for name in ["previous_action"] if name in self.inputs}
        if end:
            self.episodes += 1
            if self.episodes <= self.adaptations:
                self.memory = states
        self.action = result["action"][0]
        return result["command"][0]

    def targets(self, command):
        """What a command asks of each joint, [act], in the units of `about["command"]`: an angle, a speed, a torque."""
        return np.array(self.about["command"]["zero"]) + np.array(self.about["command"]["size"]) * command

    def _require(self, observation, reward):
        """ValueError unless there is one finite number for each channel, and a finite reward."""
        names = self.about["observation"]["names"]
        if np.asarray(observation).dtype.kind not in "biuf" or np.ma.is_masked(observation):
            raise ValueError(f"the observation is {observation!r}; give real numbers, none of them masked")
        if np.shape(observation) != (len(names),):
            raise ValueError(f"the observation has shape {np.shape(observation)}, not ({len(names)},): {names}")
        finite = np.abs(np.asarray(observation, np.float64)) <= LARGEST
        if not finite.all():
            at = int(np.argmin(finite))
            raise ValueError(f"observation {at}, {names[at]!r}, is {observation[at]}; give a finite number")
        if not abs(reward) <= LARGEST:
            raise ValueError(f"the reward is {reward}; give a finite number")


def episode(policy, robot):
    """Play an episode: an observation is read every dt, and answered at once.

    A command acts for dt less the time in which it was found. A step that comes late by half of dt, or more, begins a
    new rhythm: no command after it acts for less.

    robot.reset() -> observation; robot.send(command); robot.read() -> observation, reward, whether the episode is over.
    """
    observation, reward, dt, due = robot.reset(), 0.0, policy.about["dt"], time.monotonic()
    for step in range(policy.about["horizon"]):
        robot.send(policy.act(observation, reward, start=step == 0))
        now = time.monotonic()
        due = (due if now < due + dt / 2 else now) + dt
        time.sleep(max(0.0, due - now))
        observation, reward, over = robot.read()
        if over:
            break
    policy.act(observation, reward, end=True)
