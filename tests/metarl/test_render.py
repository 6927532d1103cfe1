"""Films and contact sheets: read back by the libraries that others read them with."""

import dataclasses
import re
import struct
from fractions import Fraction
from pathlib import Path

import av
import matplotlib.image
import numpy as np
import pytest

import metarl
from metarl.agents.sb3.settings import PpoSettings
from metarl.cli import app as cli
from metarl.config import EvaluationSettings, RunConfig, TrackingSettings, TrainingSettings
from metarl.envs.registry import make_family
from metarl.envs.robots.half_cheetah_settings import (
    HalfCheetahBodySettings,
    HalfCheetahDirectionSettings,
    HalfCheetahMassSettings,
    HalfCheetahVelocitySettings,
)
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.envs.task import Change, Task
from metarl.errors import RunError
from metarl.evaluation.evaluate import evaluate_agent
from metarl.reporting import contact_sheet
from metarl.reporting import films as render
from metarl.reporting.figures import save
from metarl.reporting.report.figures import picture
from metarl.runs.run import Run, build

SPLITS = {"train": "0072B2", "held_out": "D55E00", "ood": "009E73"}


def read(path: Path) -> tuple[list[np.ndarray], Fraction | None]:
    """Frames [H, W, 3] and frames per second of a film."""
    with av.open(path) as container:
        rate = container.streams.video[0].average_rate
        assert rate is not None
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)], rate


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(render, "PANE", (160, 120))


@pytest.mark.filterwarnings("error")
def test_letters_that_the_font_lacks_are_drawn_without_a_warning(tmp_path):
    from matplotlib.figure import Figure

    assert render.caption(["机器"], 100).std() > 0
    figure = Figure()
    figure.text(0, 0, "机器")
    save(figure, tmp_path / "a.png")
    assert picture("a", "", "", lambda axes: axes.set_title("机器")).png


class Still:
    """A renderer whose pictures show one number."""

    width, height = 30, 21

    def frame(self, pose):
        return np.full((self.height, self.width, 3), int(pose.qpos[0]), dtype=np.uint8)


class TestFilm:
    def test_encodes_every_frame_at_its_rate(self, tmp_path):
        frames = [np.full((64, 96, 3), 12 * i, dtype=np.uint8) for i in range(20)]
        (tmp_path / "a.mp4").write_bytes(render.encode(frames, Fraction(25)))
        again, rate = read(tmp_path / "a.mp4")
        assert rate == 25 and len(again) == 20
        for frame, was in zip(again, frames, strict=True):
            assert frame.shape == was.shape and abs(frame.astype(int) - was).max() <= 4

    def test_what_the_encoder_refuses_is_one_line(self):
        with pytest.raises(RunError, match="no film: PyAV cannot encode it .*it needs the encoder libx264"):
            render.encode([np.zeros((3, 5, 3), dtype=np.uint8)] * 3, Fraction(25))  # odd sizes

    def test_10_seconds_are_under_a_megabyte_even_of_a_wild_picture(self):
        """2 s of a texture that rolls by at the size of two robots take less than a fifth of it."""
        coarse = np.random.default_rng(0).integers(0, 256, (53, 120, 3), dtype=np.uint8)
        texture = coarse.repeat(8, axis=0).repeat(8, axis=1)
        frames = [np.roll(texture, 7 * i, axis=1) for i in range(40)]
        assert len(render.encode(frames, Fraction(20))) < 200_000

    @pytest.mark.parametrize(
        ("step_s", "steps", "seconds", "frames", "rate"),
        [(0.05, 40, 10, 41, 20), (0.02, 40, 10, 21, 25), (0.1, 40, 1.0, 11, 10), (1 / 90, 8, 10, 3, 30)],
    )
    def test_at_most_30_frames_per_second_and_no_longer_than_asked(
        self, step_s, steps, seconds, frames, rate, tmp_path
    ):
        clip = render.Clip("title", [render.Pose(np.array([3.0 * t])) for t in range(steps + 1)])
        video = render.film(Still(), step_s, [clip], ["a heading"], tmp_path / "new" / "a.mp4", seconds)
        again, fps = read(video.path)
        assert (len(again), fps) == (frames, rate)
        assert all(n % 2 == 0 for n in again[0].shape[:2])
        assert video.seconds == pytest.approx(min(seconds, steps * step_s))
        assert ("the first 1.0 s of 4.0 s" in str(video)) == (seconds == 1.0)

    def test_clips_are_side_by_side_in_step_and_the_shorter_one_stops(self):
        clips = [render.Clip("a", [render.Pose(np.array([t])) for t in range(count)]) for count in (3, 6)]
        frames = list(render.compose(Still(), clips, ["one", "two"], range(6)))
        top = render.LINE * 3 + render.BAR
        assert {f.shape for f in frames} == {(top + 21 + (top + 21) % 2, 60, 3)}
        assert [int(f[top + 5, 10, 0]) for f in frames] == [0, 1, 2, 2, 2, 2]
        assert [int(f[top + 5, 50, 0]) for f in frames] == [0, 1, 2, 3, 4, 5]

    def test_captions_are_readable_and_wrapped(self):
        short, long = (render.caption([text], 300) for text in ("mass", "mass scale 1.5, friction 0.3"))
        assert short.shape == long.shape == (render.LINE, 300, 3)
        assert 0 < (short < 128).sum() < (long < 128).sum()
        lines = render._wrap(",  ".join(["payload mass 1.5 kg"] * 40), 480)
        assert len(lines) == render.CAPTION_LINES and lines[-1].endswith("and 32 more")
        assert "  ".join(lines).count("payload") == 8 and max(map(len, lines)) <= 480 // 7
        assert render._wrap("mass " * 80, 480)[-1].endswith("…")


def test_what_changes_a_task_is_said_before_values_that_may_find_no_room():
    family = make_family(HalfCheetahBodySettings(faults=("dead",), fault_onset=(4, 4)))
    task = family.sample(1, np.random.default_rng(0), "train")[0]
    [_, text] = render.captions(family, task, "x")
    said = [part.split(" ")[0] for part in text.split(render.APART)]
    assert said[:2] == ["no", "from"] and len(said) > 4


def test_values_are_said_with_their_units():
    family = make_family(HalfCheetahVelocitySettings())
    assert render.value_captions(family, {"target_velocity": -1.5}) == ["target velocity −1.5 m/s"]
    family = make_family(HalfCheetahMassSettings())
    assert render.value_captions(family, {"mass_scale": 1.23456}) == ["mass scale 1.23"]


def test_the_recorded_positions_are_the_simulations():
    family = make_family(PointGoalSettings(horizon=4))
    env = render.RecordingEnv(family, 1, 2, 1)
    env.set_tasks([family.task({"goal_x": 0.2, "goal_y": 0.0})])
    for _ in range(2):
        env.reset([np.random.default_rng(0)])
        for _ in range(4):
            env.step(np.array([[[0.1, 0.0], [0.0, 0.1]]]))
    assert len(env.trajectories) == 2
    for trajectory in env.trajectories:  # the first env reaches its goal after two steps, and stays there
        qpos, stages = zip(*trajectory, strict=True)
        np.testing.assert_allclose(qpos, [[0, 0], [0.1, 0], [0.2, 0]], atol=1e-12)
        assert set(stages) == {0}


def test_an_episode_that_is_played_again_is_not_recorded():
    """An agent may adapt from another episode than the one that is judged, and filmed."""
    family = make_family(PointGoalSettings(horizon=4))
    env = render.RecordingEnv(family, 1, 1, 1)
    env.set_tasks([family.task({"goal_x": 0.4, "goal_y": 0.0})])
    for again, action in ((False, 0.1), (True, -0.1), (False, 0.05)):
        env.reset([np.random.default_rng(0)], again=again)
        for _ in range(4):
            env.step(np.array([[[action, 0.0]]]))
    paths = [[float(pose.qpos[0]) for pose in poses] for poses in env.trajectories]
    np.testing.assert_allclose(paths, [[0, 0.1, 0.2, 0.3, 0.4], [0, 0.05, 0.1, 0.15, 0.2]], atol=1e-12)


def test_poses_know_how_often_their_task_has_changed_in_the_trial():
    """Two episodes of four steps: the start, and where each step led; a change holds once so many steps are over."""
    family = make_family(HalfCheetahMassSettings(horizon=4))
    env = render.RecordingEnv(family, 1, 1, 1)
    task = Task(family.name, {"mass_scale": 1.0}, (Change(3, {"mass_scale": 1.5}), Change(6, {"mass_scale": 2.0})))
    env.set_tasks([task])
    for _ in range(2):
        env.reset([np.random.default_rng(0)])
        for _ in range(4):
            env.step(np.zeros((1, 1, 6)))
    assert [[pose.stage for pose in poses] for poses in env.trajectories] == [[0, 0, 0, 0, 1], [1, 1, 1, 2, 2]]
    said = "mass scale 1,  from step 3 of the trial on mass scale 1.5,  from step 6 of the trial on mass scale 2"
    assert render.captions(family, task, "x") == ["x", said]


@pytest.mark.usefixtures("graphics", "small")
class TestRendering:
    @pytest.fixture
    def run(self, tmp_path) -> Run:
        settings = EvaluationSettings(tasks=3, envs_per_task=2, adaptations=2, seeds=(4,), bootstrap_samples=5)
        config = RunConfig(family=HalfCheetahMassSettings(horizon=12), evaluation=settings)
        family, agent = build(config)
        return Run(tmp_path / "run", config, family, agent, iteration=7, env_steps=0)

    @pytest.mark.thorough
    def test_a_run_before_and_after_adaptation_on_the_first_task_of_its_evaluation(self, run, monkeypatch):
        shown = []
        film = render.film

        def watch(renderer, step_s, clips, lines, *rest):
            shown.append((clips, lines))
            return film(renderer, step_s, clips, lines, *rest)

        monkeypatch.setattr(render, "film", watch)
        video = render.render_run(run)
        assert video.path == run.directory / "evaluation" / "video_held_out_seed4_shot2_iteration000007.mp4"
        frames, rate = read(video.path)
        assert (len(frames), rate) == (13, 20)
        assert frames[0].shape[1] == 2 * 160
        first, last = (frame[-120:].astype(int) for frame in (frames[0], frames[-1]))  # below the captions
        for pane in (slice(0, 150), slice(160, 310)):
            assert first[:, pane].std() > 15 and abs(first[:, pane] - last[:, pane]).max() > 40  # it moves
        result = evaluate_agent(run.agent, run.family, run.config.evaluation, 1)
        [(clips, lines)] = shown
        assert [clip.title.split(":")[0] for clip in clips] == [
            "before adaptation",
            "after 4 episodes",
        ]
        for clip, expected in zip(clips, result.returns[0, [0, 2], 0], strict=True):
            said = re.search(r"mean of 2: (\S+)\)", clip.title).group(1).replace("−", "-")
            assert float(said) == pytest.approx(expected, abs=0.06)
        assert lines[1] == f"mass scale {result.tasks[0][0]['mass_scale']:.3g}"

    def test_what_disturbs_an_evaluation_disturbs_its_film(self, run, monkeypatch):
        """Noise on observations, a factor on the rewards that it sees: the returns are those of the evaluation."""
        titles, headings = [], []
        monkeypatch.setattr(
            render,
            "film",
            lambda renderer, s, clips, lines, *rest: (titles.extend(c.title for c in clips), headings.append(lines[0])),
        )
        for name, value in (("observation_noise", 1.0), ("reward_scale", 30.0)):
            titles.clear()
            settings = dataclasses.replace(run.config.evaluation, **{name: value})
            disturbed = dataclasses.replace(run, config=dataclasses.replace(run.config, evaluation=settings))
            render.render_run(disturbed)
            result = evaluate_agent(run.agent, run.family, settings, 1)
            said = [float(re.search(r"mean of 2: (\S+)\)", t).group(1).replace("−", "-")) for t in titles]
            np.testing.assert_allclose(said, result.returns[0, [0, 2], 0], atol=0.06)
            assert headings[-1].endswith(f"|  {name.replace('_', ' ')} {value}")

    @pytest.mark.thorough
    def test_each_stage_of_a_task_has_its_own_picture(self):
        family = make_family(HalfCheetahMassSettings())
        task = Task(family.name, {"mass_scale": 1.0}, (Change(3, {"mass_scale": 2.0}),))
        qpos = family.compile(task).qpos0
        with render.TaskRenderer(family, task) as both:
            before, after = both.frame(render.Pose(qpos)), both.frame(render.Pose(qpos, 1))
        assert (before != after).any()
        for value, frame in ((1.0, before), (2.0, after)):
            with render.TaskRenderer(family, family.task({"mass_scale": value})) as alone:
                np.testing.assert_array_equal(alone.frame(render.Pose(qpos)), frame)

    def test_of_an_agent_that_does_not_adapt_one_episode_is_shown(self, run, monkeypatch):
        run.config = dataclasses.replace(run.config, agent=PpoSettings(hidden_sizes=(8,)))
        run.family, run.agent = build(run.config)
        titles = []
        monkeypatch.setattr(render, "film", lambda renderer, s, clips, *rest: titles.extend(c.title for c in clips))
        render.render_run(run)
        assert len(titles) == 1 and titles[0].startswith("one policy for all tasks:  return ")

    @pytest.mark.thorough
    def test_a_task_of_ones_own_and_one_shot_only(self, run, tmp_path):
        task = run.family.task({"mass_scale": 1.5})
        video = render.render_run(run, task, shot=0, output=tmp_path / "mine.mp4", seconds=0.25)
        frames, _ = read(tmp_path / "mine.mp4")
        assert frames[0].shape[1] == 160 and len(frames) == 6
        assert str(video).startswith(f"{tmp_path}/mine.mp4 (the first 0.2 s of 0.6 s")
        assert (
            render.render_run(run, task, shot=0).path.name == f"video_{task.id[-12:]}_seed4_shot0_iteration000007.mp4"
        )
        other = render.render_run(run, task, seed=5, shot=0, altered={"horizon": 9})
        assert re.fullmatch(rf"video_{task.id[-12:]}_seed5_\w{{8}}_shot0_iteration000007.mp4", other.path.name)

    @pytest.mark.thorough
    def test_a_run_on_tasks_of_other_settings_from_the_command_line(self, tmp_path, capsys, monkeypatch):
        base = RunConfig(
            agent=PpoSettings(hidden_sizes=(4,)),
            family=HalfCheetahDirectionSettings(horizon=12),
            training=TrainingSettings(iterations=1, tasks=2, envs_per_task=1, adaptations=0, threads=1),
            evaluation=EvaluationSettings(tasks=2, envs_per_task=1, adaptations=0, seeds=(1,), bootstrap_samples=5),
            tracking=TrackingSettings(wandb="disabled"),
        )
        run = metarl.train(base, "run", tmp_path)
        command = ["render", str(run.directory), "--output", str(tmp_path / "film.mp4")]
        shown = []
        film = render.film
        monkeypatch.setattr(render, "film", lambda *given: shown.append(given[3]) or film(*given))
        fault = ["--family.faults", "dead", "--family.fault-places", "bfoot", "--family.fault-onset", "4", "4"]
        assert cli.main([*command, *fault]) == 0 and (tmp_path / "film.mp4").stat().st_size > 1000
        assert re.fullmatch(
            r"no fault,  (direction \S+,  )?from step 4 of the trial on bfoot dead( and|,  ) ?direction \S+",
            shown[0][1],
        )
        assert "fault places bfoot  |  fault onset 4" in shown[0][0] and "(" not in shown[0][0]
        assert f"task: {shown[0][1]}\n" in capsys.readouterr().out
        assert cli.main([*command, "--family.fault-places", "bfot", "--family.faults", "dead"]) == 2
        assert "fault_places has 'bfot'" in capsys.readouterr().err

    @pytest.mark.thorough
    def test_a_family_from_the_command_line(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        command = ["render", "--family", "half_cheetah_mass", "--task", '{"mass_scale": 1.5}', "family.horizon=10"]
        assert cli.main(command) == 0
        assert capsys.readouterr().out.startswith("saved half_cheetah_mass_random.mp4 (0.5 s, ")
        assert cli.main([*command, "--actions", "zero", "--output", "zero.mp4"]) == 0
        moved, still = (read(tmp_path / name)[0] for name in ("half_cheetah_mass_random.mp4", "zero.mp4"))
        assert len(moved) == len(still) == 11
        assert abs(moved[-1].astype(int) - still[-1]).max() > 40


@pytest.mark.usefixtures("graphics")
class TestContactSheet:
    @pytest.fixture(autouse=True)
    def few(self, monkeypatch):
        monkeypatch.setattr(contact_sheet, "TILE", (96, 72))
        monkeypatch.setattr(contact_sheet, "COLUMNS", 2)
        monkeypatch.setattr(contact_sheet, "ROWS", 2)

    @pytest.mark.thorough
    def test_from_the_command_line(self, tmp_path, capsys):
        path = tmp_path / "new" / "sheet.png"
        command = ["families", "show", "half_cheetah_mass", "family.mass_exponent=2", "--output", str(path)]
        assert cli.main(command) == 0
        assert capsys.readouterr().out == f"saved {path}\n"
        data = path.read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = struct.unpack(">II", data[16:24])
        assert width == contact_sheet.WIDTH * 160 and 500 < height < 1500
        image = (matplotlib.image.imread(path)[..., :3] * 255).round().astype(int)
        for colour in SPLITS.values():
            assert (np.abs(image - list(bytes.fromhex(colour))).max(axis=-1) < 3).sum() > 1000  # frames of the robots

    @pytest.mark.thorough
    def test_robots_differ_and_are_drawn_from_their_own_split(self, monkeypatch, tmp_path):
        family = make_family(HalfCheetahMassSettings())
        pictured = []
        picture = contact_sheet.picture

        def watch(family, task):
            pictured.append((task, picture(family, task)))
            return pictured[-1][1]

        monkeypatch.setattr(contact_sheet, "picture", watch)
        contact_sheet.draw(family, tmp_path / "a.png")
        masses = [task.values["mass_scale"] for task, _ in pictured]
        rows = [masses[i : i + 2] for i in (0, 2, 4)]  # training, held-out, out-of-distribution
        assert len(set(masses)) == len(masses) == 6 and rows == [sorted(row) for row in rows]
        low, high = family.parameters[0].distribution.low, family.parameters[0].distribution.high
        assert [all(low <= mass <= high for mass in row) for row in rows] == [True, True, False]
        for _, image in pictured:
            assert image.shape == (72, 96, 3) and image.std() > 15
        assert not np.array_equal(pictured[0][1], pictured[1][1])

    def test_a_family_that_only_the_reward_tells_apart_is_shown_once(self, monkeypatch, tmp_path):
        calls = []
        monkeypatch.setattr(contact_sheet, "picture", lambda *a: calls.append(a) or np.zeros((72, 96, 3), np.uint8))
        contact_sheet.draw(make_family(HalfCheetahVelocitySettings()), tmp_path / "a.png")
        assert len(calls) == 1 and (tmp_path / "a.png").stat().st_size > 5000


def test_of_too_many_parameters_those_furthest_from_neutral_are_said():
    family = make_family(PointGoalSettings())
    goal = family.parameters[0]
    many = tuple(dataclasses.replace(goal, name=f"p{i}") for i in range(8))
    family = dataclasses.replace(family, parameters=many)
    task = family.task({"p1": 0.1, "p3": -0.4, "p5": 0.3, "p7": 0.2})
    said = ["p1 0.1 m", "p3 −0.4 m", "p5 0.3 m", "p7 0.2 m", "and 4 more nearer to neutral"]
    assert contact_sheet._tile_caption(family, task) == said
    layout = dataclasses.replace(family, layout=("p0",))  # as the number of legs, which is said in any case
    assert contact_sheet._tile_caption(layout, task) == ["p0 0 m", "p3 −0.4 m", "p5 0.3 m", "p7 0.2 m", said[-1]]


MISTAKES = {
    ("render",): "metarl render takes the folder of one run (metarl render runs/NAME) or --family NAME",
    ("render", "a", "b"): "got a b",
    ("render", "a", "--family", "point_goal"): "got a --family point_goal",
    ("render", "absent"): "no run folder absent",
    ("render", "--family", "point_gaol"): "unknown family 'point_gaol'; did you mean 'point_goal'?",
    ("render", "--family", "point_goal", "--shto", "3"): "unknown option --shto",
    ("render", "--family", "point_goal", "--actions", "sit"): "--actions is 'sit'",
    ("render", "--family", "point_goal", "--split", "held"): "--split is 'held'; did you mean 'held_out'?",
    ("render", "--family", "point_goal", "--output", "a.avi"): "--output is 'a.avi'; name a file that ends with .mp4",
    ("render", "--family", "point_goal", "--seconds", "0"): "--seconds is 0; it must be greater than 0",
    ("render", "--family", "point_goal", "--seed", "-1"): "--seed is -1; it must be at least 0",
    ("render", "--family", "point_goal", "family.goal_range=-1"): "family.goal_range is -1; it must be greater than 0",
    (
        "render",
        "--family",
        "point_goal",
        "--task",
        "{",
    ): "--task is '{'; give the parameter values as JSON, such as '{\"goal_x\": 0.0}'",
    (
        "render",
        "--family",
        "point_goal",
        "--task",
        '{"gaol_x": 1}',
    ): "has no parameter 'gaol_x'; did you mean 'goal_x' or 'goal_y'?",
    ("render", "--family", "point_goal", "--task", '{"goal_x": "a"}'): "parameter 'goal_x' must be a number (m)",
    ("render", "--family", "point_goal", "--task", "{}", "--split", "train"): "--task already says what --split says",
    ("render", "--family", "point_goal", "--output", "/proc/x.mp4"): (
        "cannot write /proc/x.mp4: No such file or directory; choose another --output"
    ),
    (
        "families",
        "show",
        "point_goal",
        "--output",
        "/proc/x.png",
    ): "cannot write /proc/x.png: No such file or directory",
    ("render", "--family", "point_goal", "--task", '{"goal_x": 1e308}'): (
        "parameter 'goal_x' must be from -1e+10 to 1e+10 (m), got 1e+308"
    ),
    ("families", "show"): "metarl families show takes the name of one family",
    ("families", "show", "a", "b"): "takes the name of one family, got a b",
    ("families", "show", "point_gaol"): "unknown family 'point_gaol'; did you mean 'point_goal'?",
    ("families", "show", "point_goal", "--output", "a.jpg"): "--output is 'a.jpg'; name a file that ends with .png",
    ("families", "show", "point_goal", "--sede", "3"): "unknown option --sede; did you mean '--seed'?",
    ("families", "show", "point_goal", "--seed", "x"): "--seed is 'x', text; it must be a whole number",
    ("families", "show", "point_goal", "family.gaol_range=1"): "did you mean '--family.goal-range'?",
}


@pytest.mark.parametrize("line", MISTAKES, ids=" ".join)
def test_a_mistake_is_one_line_that_names_thing_and_remedy(line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(list(line)) == 2
    output, message = capsys.readouterr()
    assert MISTAKES[line] in message
    assert message.startswith("error: ") and message.count("\n") == 1
    assert output == "" and list(tmp_path.iterdir()) == []


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("MUJOCO_GL", "invalid", "error: MUJOCO_GL is 'invalid', with which MuJoCo cannot be imported"),
        ("MUJOCO_EGL_DEVICE_ID", "999", "error: no offscreen renderer: egl fails here"),
    ],
)
@pytest.mark.parametrize("command", ["render --family point_goal", "families show point_goal"])
def test_no_renderer_is_the_callers_to_mend(command, variable, value, said, metarl, environment, tmp_path):
    environment.pop("MUJOCO_GL", None)
    environment[variable] = value
    try:
        done = metarl(*command.split())
    finally:
        del environment[variable]
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(said) and done.stderr.count("\n") == 1
    assert "libegl1" in done.stderr and "osmesa" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((100, 100), "100"),
        ((0.5, 1.0), "0.5 to 1"),
        (("weak", "stuck"), "weak, stuck"),
        (("FR_calf",), "FR_calf"),
        (3, "3"),
    ],
)
def test_a_setting_of_the_heading_is_in_words(value, text):
    assert render.setting_caption(value) == text
