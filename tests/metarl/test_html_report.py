"""The report: what is on the page, and that a browser shows it offline, on a phone too."""

import base64
import contextlib
import dataclasses
import fcntl
import html.parser
import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import PIL.Image
import pytest

from metarl.agents.agent_settings import AgentSettings
from metarl.agents.maml.settings import MamlSettings
from metarl.agents.rl2.settings import Rl2Settings
from metarl.cli import app as cli
from metarl.config import EvaluationSettings, RunConfig, TrackingSettings, TrainingSettings, settings_of
from metarl.envs import rendering
from metarl.envs.family_settings import FamilySettings
from metarl.envs.registry import make_family
from metarl.envs.robots.half_cheetah_settings import HalfCheetahMassSettings
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.envs.robots.quadruped_settings import QuadrupedSettings
from metarl.errors import UsageError
from metarl.evaluation.comparison import Compared, Comparison
from metarl.evaluation.results import AgentResult, Source
from metarl.evaluation.saved import read_evaluation
from metarl.evaluation.statistics import summarise
from metarl.reporting import agent_figures, contact_sheet
from metarl.reporting import films as render
from metarl.reporting.judge import compare
from metarl.reporting.report import figures as report_figures
from metarl.reporting.report import heat_map
from metarl.reporting.report.films import unlike
from metarl.reporting.report.material import ReportedAgent, ReportedComparison, ReportedRun, one_agent
from metarl.runs import checkpoint
from metarl.runs.checkpoint import CheckpointStore
from metarl.runs.run import start_run
from metarl.runs.tracking import read_metrics
from metarl.training.loop import train

pytestmark = pytest.mark.thorough

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)
WAIT_S = 600.0


class Browser:
    """Headless Chromium, driven by its DevTools protocol over two pipes: JSON, each message ended by a zero byte."""

    def __init__(self, program: str, profile: Path) -> None:
        command, reply = os.pipe(), os.pipe()
        # The browser reads its file descriptor 3 and writes 4; ours are kept clear of the two.
        theirs = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (command[0], reply[1])]

        def connect() -> None:
            os.dup2(theirs[0], 3)
            os.dup2(theirs[1], 4)

        self._process = subprocess.Popen(
            [program, *FLAGS, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=False,
            preexec_fn=connect,
        )
        for end in (*theirs, command[0], reply[1]):
            os.close(end)
        self._write, self._read = command[1], reply[0]
        os.set_blocking(self._read, False)
        self._buffer, self._count, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []

    def close(self) -> None:
        with contextlib.suppress(OSError, AssertionError):
            self("Browser.close")
        self._process.kill()
        self._process.wait()
        for end in (self._write, self._read):
            os.close(end)

    def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        answer = self._until(lambda got: got.get("id") == message["id"])
        assert "error" not in answer, answer
        return answer["result"]

    def _until(self, wanted) -> dict[str, Any]:
        """The first message that is wanted; events before it are kept."""
        deadline = time.monotonic() + WAIT_S
        while True:
            while b"\0" in self._buffer:
                text, self._buffer = self._buffer.split(b"\0", 1)
                message = json.loads(text)
                if "method" in message:
                    self.events.append(message)
                if wanted(message):
                    return message
            assert time.monotonic() < deadline and self._process.poll() is None, "Chromium does not answer"
            try:
                self._buffer += os.read(self._read, 1 << 20)
            except BlockingIOError:
                time.sleep(0.01)

    def open(self, page: Path, width: int, height: int = 844, dark: bool = False) -> None:
        """Load a page in a new tab of that width."""
        self._session = ""
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", features=[scheme])
        self.events = []
        self("Page.navigate", url=page.resolve().as_uri())
        if not self.named("Page.loadEventFired"):
            self._until(lambda message: message.get("method") == "Page.loadEventFired")

    def named(self, *methods: str) -> list[dict[str, Any]]:
        """Parameters of the events of these names since the page was opened."""
        return [event["params"] for event in self.events if event["method"] in methods]

    def evaluate(self, script: str) -> Any:
        """What an expression gives; promises are awaited."""
        result = self("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """The whole page as PNG."""
        size = self("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        data = self("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)["data"]
        path.write_bytes(base64.b64decode(data))


@pytest.fixture(scope="module")
def browser():
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        pytest.skip("no Chromium here (Debian, Ubuntu: apt-get install chromium): the page is not looked at")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        opened = Browser(program, Path(profile))
        yield opened
        opened.close()


SIZE = TrainingSettings(iterations=2, tasks=2, envs_per_task=2, threads=1)
EVALUATION = EvaluationSettings(tasks=12, envs_per_task=2, adaptations=1, seeds=(1, 2), bootstrap_samples=50)


def trained(
    folder: Path, name: str, agent: AgentSettings, family: FamilySettings, seed: int = 1, adaptations: int = 1
) -> Path:
    """A tiny run that ended, with its evaluation."""
    training = dataclasses.replace(SIZE, seed=seed, adaptations=adaptations)
    evaluation = dataclasses.replace(EVALUATION, adaptations=adaptations)
    config = RunConfig(agent, family, training, evaluation, TrackingSettings(wandb="disabled"))
    directory = start_run(config, folder, name)
    train(config, directory)
    return directory


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A folder with runs of two agents on one family, one on another, and the comparison of the first two."""
    folder = tmp_path_factory.mktemp("world")
    goal = PointGoalSettings(horizon=10)
    trained(folder / "runs", "first", MamlSettings(), goal)
    trained(folder / "runs", "second", Rl2Settings(), goal, seed=2)
    trained(folder / "runs", "other", MamlSettings(), HalfCheetahMassSettings(horizon=10))
    entries = [folder / "runs" / "first", folder / "runs" / "second"]
    compare(entries, settings=EVALUATION, output=folder / "comparisons" / "both")
    return folder


@pytest.fixture(autouse=True)
def here(world, monkeypatch):
    """In that folder; pictures are small."""
    monkeypatch.chdir(world)
    monkeypatch.setattr(render, "PANE", (160, 120))
    monkeypatch.setattr(contact_sheet, "TILE", (96, 72))
    monkeypatch.setattr(contact_sheet, "ROWS", 1)


def made(output: Path, *arguments: str) -> dict[str, Any]:
    """The JSON of a report that is made without fault."""
    assert cli.main(["report", *arguments, "--output", str(output)]) == 0
    return json.loads((output / "report.json").read_text())


class Addresses(html.parser.HTMLParser):
    """What a page loads or links to, its images without a text, and the tags that are not closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.mute: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.found += [values[name] for name in ("src", "href", "poster", "srcset", "data", "action") if name in values]
        self.mute += [tag] if (tag == "img" and not values.get("alt")) else []
        assert tag != "script" and not any(name.startswith("on") for name in values)
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def tables(report: dict[str, Any], caption: str) -> list[dict[str, Any]]:
    blocks = [block for section in report["sections"] for block in section["blocks"]]
    return [block for block in blocks if block["kind"] == "table" and block["caption"].startswith(caption)]


@pytest.fixture(scope="module")
def page(world, graphics, tmp_path_factory) -> Path:
    """The report on the two runs of one family."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(world)
        patch.setattr(render, "PANE", (160, 120))
        patch.setattr(contact_sheet, "TILE", (96, 72))
        patch.setattr(contact_sheet, "ROWS", 1)
        made(output := tmp_path_factory.mktemp("report"), "runs/first", "second", "--title", "Two <b>learners</b>")
    return output / "report.html"


def test_the_browser_tells_of_requests_errors_and_wide_pages(browser, tmp_path):
    """What the test of the page looks for is seen where it is there."""
    page = tmp_path / "bad.html"
    page.write_text("<img src='http://127.0.0.1:9/a.png'><div style='width:900px'>x</div><script>undefined.x</script>")
    browser.open(page, 390)
    assert any(event["request"]["url"].startswith("http:") for event in browser.named("Network.requestWillBeSent"))
    assert browser.named("Runtime.exceptionThrown") and browser.named("Log.entryAdded")
    assert browser.evaluate("document.images[0].naturalWidth") == 0
    assert browser.evaluate("document.documentElement.scrollWidth") >= 900


class TestPage:
    @pytest.mark.parametrize(("width", "dark"), [(390, False), (1280, True)])
    def test_a_browser_shows_all_of_it_and_asks_for_nothing_else(self, page, browser, width, dark, tmp_path):
        browser.open(page, width, dark=dark)
        images = browser.evaluate("[...document.images].map(i => [i.complete, i.naturalWidth, i.clientWidth])")
        assert len(images) == len(json.loads((page.parent / "report.json").read_text())["figures"]) >= 8
        assert all(complete and natural > 200 and shown > 200 for complete, natural, shown in images)
        films = browser.evaluate(
            "Promise.all([...document.querySelectorAll('video')].map(v => new Promise(done => { const tell = () => "
            "done([v.videoWidth, v.duration]); v.readyState >= 1 ? tell() : (v.onloadedmetadata = tell, v.onerror = "
            "() => done([v.error.message, 0])) })))"
        )
        assert len(films) == 2 and all(film == [320, pytest.approx(1.1, abs=0.15)] for film in films)
        assert browser.named("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled") == []
        asked = {event["request"]["url"].split(":")[0] for event in browser.named("Network.requestWillBeSent")}
        assert asked <= {"file", "data"} and len(browser.named("Network.requestWillBeSent")) > 8
        files = [e for e in browser.named("Network.requestWillBeSent") if e["request"]["url"].startswith("file:")]
        assert [event["request"]["url"] for event in files] == [page.as_uri()]
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        hidden = "[...document.querySelectorAll('td, h1, h2, p, figcaption')].filter(e => !e.closest('.table') "
        hidden += "&& e.getBoundingClientRect().right > innerWidth + 1).length"
        assert browser.evaluate(hidden) == 0
        assert (
            browser.evaluate(
                "Math.min(...['p', 'td', 'li'].map(t => parseFloat(getComputedStyle("
                "document.querySelector(t)).fontSize)))"
            )
            >= 14
        )
        ink, paper = browser.evaluate(
            "['color', 'backgroundColor'].map(k => getComputedStyle(document.body)[k].match(/\\d+/g)[0] * 1)"
        )
        assert (ink > 200 and paper < 50) if dark else (ink < 50 and paper > 200)
        ends = "Math.max(...[...document.querySelectorAll('img, video')].map(i => i.getBoundingClientRect().right))"
        assert browser.evaluate(ends) <= width and browser.evaluate("document.querySelectorAll('.scroll').length") == 0
        browser.screenshot(tmp_path / "page.png")
        assert matplotlib.image.imread(tmp_path / "page.png").shape[1] == width

    def test_is_one_file_that_says_everything(self, page):
        text = page.read_text()
        read = Addresses(text)
        assert all(address.startswith(("data:", "#")) for address in read.found) and len(read.found) > 12
        assert read.mute == [] and read.open == []
        assert '<html lang="en">' in text and "<h1>Two &lt;b&gt;learners&lt;/b&gt;</h1>" in text
        assert not re.search(r"url\(\s*['\"]?(?!#|data:)|@import", text)
        svgs = [base64.b64decode(a.split(",")[1]).decode() for a in read.found if a.startswith("data:image/svg")]
        assert len(svgs) >= 6 and all("prefers-color-scheme:dark" in svg for svg in svgs)
        for svg in svgs:
            assert all(link.startswith(("#", "data:")) for link in re.findall(r'href="([^"]*)"', svg))
        titles = ["Overview", "point_goal, held-out tasks", "Learning curves", "Before and after adaptation"]
        assert re.findall(r"<h2[^>]*>(.*?)</h2>", text) == [*titles, "Task distribution", "Settings", "How it was made"]

    def test_markdown_names_files_that_are_there(self, page):
        text = (page.parent / "report.md").read_text()
        files = re.findall(r"\]\(((?:figures|videos)/[^)]*)\)", text)
        report = json.loads((page.parent / "report.json").read_text())
        assert sorted(files) == sorted(
            [f["file"] for f in report["figures"]] + ["videos/first.mp4", "videos/second.mp4"]
        )
        for file in files:
            data = (page.parent / file).read_bytes()
            assert data[4:8] == b"ftyp" if file.endswith("mp4") else data[:4] == b"\x89PNG"
        assert text.startswith("# Two \\<b\\>learners\\</b\\>\n")
        for line in text.splitlines():
            if line.startswith("| "):
                assert line.endswith("|")

    def test_tables_say_what_the_comparison_has(self, page):
        report = json.loads((page.parent / "report.json").read_text())
        comparison = json.loads(Path("comparisons/both/comparison.json").read_text())
        [table] = tables(report, "Return of an episode")
        cells = {row[0]: dict(zip(table["columns"], row, strict=True)) for row in table["rows"]}
        for agent in comparison["agents"]:
            for head, shots, sign in (("before adaptation", "iqm", ""), ("gain", "gain", "+")):
                shot = agent["summary"][shots][0 if head == "before adaptation" else -1]
                said = [float(number) for number in re.findall(r"[-+]?\d+\.\d+", cells[agent["label"]][head])]
                assert said == pytest.approx([shot["estimate"], shot["low"], shot["high"]], abs=0.006), sign
        assert report["evaluations"][0]["agents"][0]["returns"] == comparison["agents"][0]["returns"]
        [pairs] = tables(report, "Probability of improvement")
        assert [row[:2] for row in pairs["rows"]] == [["first", "second"]]
        assert report["runs"][1]["learning"]["return/after"] == [
            line["return/after"] for line in read_metrics(Path("runs/second"))
        ]

    def test_only_settings_that_differ_are_compared(self, page):
        report = json.loads((page.parent / "report.json").read_text())
        [table] = tables(report, "Settings that differ")
        rows = {row[0]: row[1:] for row in table["rows"]}
        assert rows["agent.name"] == ["maml", "rl2"] and rows["training.seed"] == ["1", "2"]
        assert rows["agent.initial_std"] == ["1.0", "0.25"]
        assert not {"agent.inner_lr", "training.tasks", "family.horizon"} & set(rows)

    def test_commands_seeds_versions_and_machine_are_there(self, page):
        text = (page.parent / "report.md").read_text()
        for said in ("metarl train --config runs/first/config.yaml", "torch 2.", "mujoco 3.", "Python 3.", "1, 2"):
            assert said in text
        report = json.loads((page.parent / "report.json").read_text())
        assert report["made"]["command"] and report["runs"][0]["config"]["training"]["iterations"] == 2


def test_a_run_looks_the_same_in_every_figure():
    """Whatever its place among the agents, and under whatever label it was compared."""
    runs = [
        ReportedRun(
            name,
            Path(name),
            RunConfig(training=dataclasses.replace(SIZE, reveal_task=name == "o")),
            2,
            9,
            {},
            *[()] * 3,
        )
        for name in ("a", "o", "b")
    ]

    one = compared(made_up("b:tuned", "b", x=1), made_up("renamed", "b"), made_up("a"), made_up("o", "o", oracle=True))
    two = compared(made_up("a:tuned", "a", x=1), made_up("b:tuned", "b", x=1))
    looks = report_figures.looks_of(runs, [one, two])
    first, second = ([shown.style for shown in report_figures.shown_of(own, looks)] for own in (one, two))
    assert first[1] == looks["b"] and first[3] == looks["o"] and second[0] == looks["a"]
    assert first[0] == second[1]
    assert len({style["color"] for style in (looks["a"], looks["b"], looks["o"], first[0], first[2])}) == 5


def made_up(label: str, *of: str, oracle: bool = False, **overrides: Any) -> ReportedAgent:
    """An agent whose returns are 0, which is the runs of these labels, all evaluated at iteration 2."""
    returns = np.zeros((1, 2, 2))
    summary = summarise(returns[None], 10, np.random.default_rng(0))
    result = AgentResult(returns=returns, faults=0, summary=summary, source=Source(of[0] if of else label, 2, 9))
    agent = Compared(label=label, oracle=oracle, overrides=overrides, result=result, explore=True, envs_per_task=1)
    return ReportedAgent(agent, dict.fromkeys(of, 2))


def compared(*agents: ReportedAgent) -> ReportedComparison:
    comparison = Comparison(
        family="f",
        family_settings={"name": "f"},
        settings=EVALUATION,
        tasks=[[{"a": 1.0}, {"a": 2.0}]],
        agents=tuple(agent.agent for agent in agents),
    )
    return ReportedComparison(comparison, agents, ())


def test_runs_of_one_agent_look_alike_unless_they_are_judged_apart():
    runs = [ReportedRun(name, Path(name), RunConfig(), 2, 9, {}, *[()] * 3) for name in ("p1", "p2", "q")]
    together = [compared(made_up("p1", "p1", "p2"), made_up("q", "q"))]
    assert one_agent(together) == {"p1": "p1", "p2": "p1"}
    looks = report_figures.looks_of(runs, together)
    assert looks["p1"] is looks["p2"] and looks["q"]["color"] != looks["p1"]["color"]
    apart = [*together, compared(made_up("p1", "p1"), made_up("p2", "p2"))]
    assert one_agent(apart) == {}
    colours = {look["color"] for look in report_figures.looks_of(runs, apart).values()}
    assert len(colours) == 3


def test_a_cell_of_a_heat_map_is_the_mean_of_its_tasks():
    x, y = np.array([0.1, 0.2, 0.9, 0.8, 0.4]), np.array([0.1, 0.2, 0.9, 0.7, 0.9])
    returns = np.array([[1.0, 3.0, 10.0, 20.0, np.nan]])
    across, up = (heat_map.Side(name, values, None, None) for name, values in (("x", x), ("y", y)))
    np.testing.assert_allclose(across.edges, [0.1, 0.5, 0.9])
    cells = heat_map.cells_of((across, up), returns)
    assert {place: interval.estimate for place, interval in cells.items()} == {(0, 0): 2.0, (1, 1): 15.0}
    assert (cells[1, 1].low, cells[1, 1].high) == (10.0, 20.0)


def test_bins_hold_equally_many_tasks_or_one_value():
    values = np.random.default_rng(0).permutation(48).astype(float)
    groups = agent_figures.bins_of(values)
    assert [sorted(values[group]) for group in groups] == [list(range(i, i + 6)) for i in range(0, 48, 6)]
    legs = np.array([4.0, 3.0, 4.0, 3.0, 6.0, 4.0])
    assert [legs[group].tolist() for group in agent_figures.bins_of(legs)] == [[3, 3], [4, 4, 4], [6]]
    assert agent_figures.dependence(legs, 2 * legs) == pytest.approx(1)
    nothing = agent_figures.dependence(np.repeat([1.0, 2.0], 4), np.array([0.0, 1, 0, 1, 0, 1, 0, 1]))
    assert nothing == pytest.approx(1 - (2 / 6) / (2 / 7))  # less between them than by chance


def test_values_with_names_are_never_pooled():
    places = np.array([0.0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0, 5])
    assert [places[group].tolist() for group in agent_figures.bins_of(places, named=True)][:2] == [[0, 0], [1]]
    rng = np.random.default_rng(0)
    chance = [agent_figures.dependence(rng.integers(0, 12, 24) * 1.0, rng.normal(size=24), True) for _ in range(400)]
    assert np.mean(chance) == pytest.approx(0, abs=0.05)  # many groups alone make no dependence
    family = make_family(QuadrupedSettings(faults=("weak",)))
    place = next(p for p in family.parameters if p.name == "fault_place")
    side = heat_map.Side("place", places, place, None)
    np.testing.assert_array_equal(side.edges, np.arange(-0.5, 12))


def text_of(output: Path) -> str:
    return (output / "report.md").read_text().replace("\\", "")


def test_without_a_renderer_the_page_says_so_and_goes_on(tmp_path, monkeypatch):
    def refuse(*size):
        raise rendering.RenderingUnavailable("no offscreen renderer: egl fails here; install EGL")

    monkeypatch.setattr(rendering, "open_context", refuse)
    report = made(tmp_path, "runs/first")
    text = text_of(tmp_path)
    assert "no films: no offscreen renderer: egl fails here" in text and "no contact sheet: no offscreen" in text
    assert not (tmp_path / "videos").exists() and len(report["figures"]) >= 5


@pytest.fixture
def blind(monkeypatch):
    """Without contact sheets, and with a dot for each figure: what is said counts."""

    def refuse(*arguments, **options):
        raise UsageError("none here")

    def dot(name, alt, caption, draw, height=0.0):
        PIL.Image.new("RGB", (1, 1)).save(png := io.BytesIO(), "png")
        return report_figures.Picture(name, alt, caption, png.getvalue())

    monkeypatch.setattr(contact_sheet, "draw", refuse)
    monkeypatch.setattr(report_figures, "picture", dot)
    monkeypatch.setattr(heat_map, "picture", dot)


@pytest.mark.usefixtures("blind")
class TestWhatTheReaderIsTold:
    def test_runs_of_different_families(self, tmp_path):
        report = made(tmp_path, "first", "other", "--no-videos")
        assert "trained on different families (half_cheetah_mass, point_goal)" in text_of(tmp_path)
        assert [j["family"] for j in report["evaluations"]] == ["point_goal", "half_cheetah_mass"]
        assert len(tables(report, "Return of an episode")) == 2
        assert [len(table["rows"]) for table in tables(report, "Return of an episode")] == [1, 1]
        names = [figure["file"] for figure in report["figures"] if "learning" in figure["file"]]
        assert len(names) == 4

    def test_a_run_without_evaluation_and_a_damaged_one(self, tmp_path):
        for name in ("none", "damaged"):
            shutil.copytree("runs/first", tmp_path / name)
        shutil.rmtree(tmp_path / "none" / "evaluation")
        [path] = (tmp_path / "damaged" / "evaluation").glob("*.json")
        path.write_text(path.read_text()[:-300])
        made(tmp_path / "out", str(tmp_path / "none"), str(tmp_path / "damaged"), "--no-videos")
        text = text_of(tmp_path / "out")
        assert "none has no evaluation, so nothing is said about it on tasks that it never saw; make one" in text
        assert f"cannot read {path}: it is no valid JSON" in text and "it is left out" in text

    def test_a_memoriser_and_numbers_of_an_earlier_checkpoint(self, tmp_path):
        data = json.loads(Path("comparisons/both/comparison.json").read_text())
        after = {"estimate": 30.0, "low": 20.0, "high": 40.0}
        data["agents"][0]["train_gap"] = {**(data["agents"][0]["train_gap"] or {}), "after": after, "flagged": True}
        data["agents"][1]["iteration"] = 1
        data["notes"].append("observed with noise: 0.1 standard deviations")
        data["warnings"].append("second: adaptation makes it worse")
        (tmp_path / "comparison.json").write_text(json.dumps(data))
        report = made(tmp_path / "out", "first", "second", "--no-videos", "--comparison", str(tmp_path))
        warnings = report["sections"][0]["blocks"][0]
        assert warnings["tone"] == "warning"
        said = " ".join(warnings["lines"])
        assert said.count("makes it worse") == text_of(tmp_path / "out").count("makes it worse") == 1
        assert "+30.00 [+20.00, +40.00]" in text_of(tmp_path / "out")
        assert "second was evaluated at iteration 1, its last checkpoint is of iteration 2" in said
        assert "observed with noise" in text_of(tmp_path / "out") and "⚑ not 0" in text_of(tmp_path / "out")

    def test_runs_of_one_folder_name_are_told_apart_by_where_they_are(self, tmp_path):
        """A copy elsewhere is another run while the compared one is where it was, and that one once it is gone."""
        copy = shutil.copytree("runs/first", tmp_path / "elsewhere" / "first")
        data = json.loads(Path("comparisons/both/comparison.json").read_text())
        (tmp_path / "comparison.json").write_text(json.dumps(data))
        arguments = (str(copy), "second", "--no-videos", "--comparison", str(tmp_path))
        report = made(tmp_path / "there", *arguments)
        agents = [[(a["label"], *a["report_runs"]) for a in j["agents"]] for j in report["evaluations"]]
        assert agents == [[("first",), ("second", "second")], [("first", "first")]]
        absent = f"they are in its tables and figures alone: first ({Path('runs/first').resolve()})"
        assert absent in text_of(tmp_path / "there")
        data["agents"][0]["folder"] = str(tmp_path / "gone" / "first")
        (tmp_path / "comparison.json").write_text(json.dumps(data))
        report = made(tmp_path / "gone_then", *arguments)
        agents = [[(a["label"], *a["report_runs"]) for a in j["agents"]] for j in report["evaluations"]]
        assert agents == [[("first", "first"), ("second", "second")]]
        data["agents"][0]["trained"]["training"]["seed"] = 9
        (tmp_path / "comparison.json").write_text(json.dumps(data))
        report = made(tmp_path / "other_seed", *arguments)
        assert report["evaluations"][0]["agents"][0]["report_runs"] == []

    def test_evaluations_on_the_same_tasks_are_side_by_side_others_are_not(self, world, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)  # no comparison is found
        runs = [shutil.copytree(world / "runs" / name, name) for name in ("first", "second")]
        report = made(tmp_path / "a", *map(str, runs), "--no-videos")
        [table] = tables(report, "Return of an episode")
        assert [row[0] for row in table["rows"]] == ["first", "second"]
        [path] = Path("second/evaluation").glob("*.json")
        data = json.loads(path.read_text())
        data["tasks"][0][0]["goal_x"] += 0.1
        path.write_text(json.dumps(data))
        report = made(tmp_path / "b", *map(str, runs), "--no-videos")
        assert len(tables(report, "Return of an episode")) == 2
        assert "agents met different held-out tasks of point_goal" in text_of(tmp_path / "b")

    def test_a_smaller_evaluation_hides_no_larger_one(self, world, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        run = shutil.copytree(world / "runs/first", "first")
        [path] = Path("first/evaluation").glob("*.json")
        recorded = len(read_evaluation(path).tasks[0])
        for tasks, shown in ((recorded - 1, recorded), (recorded + 1, recorded + 1)):
            assert cli.main(["evaluate", "first", f"evaluation.tasks={tasks}", "--no-train-gap"]) == 0
            report = made(tmp_path / str(tasks), str(run), "--no-videos")
            [own] = report["evaluations"]
            assert np.shape(own["agents"][0]["returns"])[-1] == shown

    def test_evaluations_in_other_circumstances_are_beside_the_runs_own(self, world, tmp_path, monkeypatch):
        """Of another horizon, with noise, without adaptation: each has a section that says so; none is dropped."""
        monkeypatch.chdir(tmp_path)
        runs = [shutil.copytree(world / "runs" / name, name) for name in ("first", "second")]
        for options in ("first evaluation.observation-noise=3", "first --shots 0", "first second --family.horizon 5"):
            assert cli.main(["evaluate", *options.split(), "--no-train-gap"]) == 0
        report = made(tmp_path / "out", *map(str, runs), "--no-videos")
        found = [[agent["label"] for agent in each["agents"]] for each in report["evaluations"]]
        assert sorted(found) == [["first"], ["first"], ["first", "second"], ["first", "second"]]
        titles = [section["title"] for section in report["sections"] if "held-out tasks" in section["title"]]
        for said in ("family.horizon=5", "evaluation.observation_noise=3.0", "evaluation.adaptations=0"):
            assert sum(said in title for title in titles) == 1, titles
        assert "or other settings of the family" in text_of(tmp_path / "out")

    def test_films_of_runs_that_files_cannot_tell_apart_have_names_of_their_own(self):
        names: list[str] = []
        for _ in range(3):
            names.append(unlike("a_b", names))
        assert names == ["a_b", "a_b_2", "a_b_3"]

    def test_another_report_is_not_overwritten(self, tmp_path, capsys):
        made(tmp_path / "out", "first", "--no-videos")
        made(tmp_path / "out", "first", "--no-videos")
        capsys.readouterr()
        assert cli.main(["report", "second", "--no-videos", "--output", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert "out holds the report of runs/first; name another folder" in error and error.count("\n") == 1

    def test_an_agent_that_does_not_adapt_is_not_said_to_have(self, world, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        ppo = settings_of("agent", "ppo")()
        run = trained(tmp_path, "still", ppo, PointGoalSettings(horizon=10), adaptations=0)
        made(tmp_path / "out", str(run), "--no-videos")
        figures = " ".join(line for line in text_of(tmp_path / "out").splitlines() if line.startswith("!["))
        assert "Learning curves on point_goal against env steps: return on training tasks" in figures
        assert "Return against goal x, from" in figures and "after adaptation" not in figures.replace(
            "returns after", ""
        )


def broken(tmp_path: Path, name: str, text: str) -> str:
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "metarl report takes the folders of one or more runs"),
        (("fisrt",), "no run folder fisrt"),
        (("runs/fisrt",), "did you mean 'first'?"),
        (("first", "runs/first"), "run runs/first is given twice"),
        (("first", "--vidoes"), "unknown option --vidoes"),
        (
            ("first", "evaluation.adaptations=3"),
            "unknown option --evaluation.adaptations; this command takes no settings",
        ),
        (("first", "--comparison", "absent"), "no comparison absent; give the folder that metarl evaluate"),
        (("first", "--comparison", "runs"), "no comparison.json in runs; give the folder"),
        (("other", "--comparison", "comparisons/both"), "has none of the runs given; it is of first, second"),
        (("first", "--comparison", "{cut}"), "cannot read {cut}: it is no valid JSON"),
        (("first", "--comparison", "{list}"), "{list} is not a comparison of metarl: "),
        (("first", "--comparison", "{empty}"), "{empty} is not a comparison of metarl: it has no 'evaluation'"),
        (("first", "--comparison", "{shape}"), "{shape} is not a comparison of metarl: returns of shape (1, 1, 1)"),
        (("first", "--output", "runs/first/config.yaml"), "which is a file; name a folder"),
        (("{bare}",), "no checkpoint in {bare}/checkpoints; the run ended before its first one"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(arguments, said, tmp_path, capsys):
    data = json.loads(Path("comparisons/both/comparison.json").read_text())
    data["agents"][0]["returns"] = [[[1.0]]]
    names = {
        "cut": broken(tmp_path, "cut.json", '{"agents": ['),
        "list": broken(tmp_path, "list.json", "[1]"),
        "empty": broken(tmp_path, "empty.json", "{}"),
        "shape": broken(tmp_path, "shape.json", json.dumps(data)),
        "bare": str(tmp_path / "bare"),
    }
    shutil.copytree("runs/first", names["bare"])
    shutil.rmtree(tmp_path / "bare" / "checkpoints")
    assert cli.main(["report", *(argument.format(**names) for argument in arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert said.format(**names) in captured.err


@pytest.mark.usefixtures("blind")
def test_a_full_disk_is_said_in_a_line(tmp_path, capsys):
    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, was[1]))
        status = cli.main(["report", "first", "--no-videos", "--output", str(tmp_path / "out")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, was)
    said = capsys.readouterr().err
    assert status == 1 and said.count("\n") == 1
    assert said.startswith(f"error: cannot write {tmp_path}/out/") and "or choose another --output" in said
    assert "File too large" in said and not list((tmp_path / "out").glob("report.*"))


@pytest.mark.usefixtures("blind")
def test_wandb_gets_page_and_figures_in_the_run_of_the_run(tmp_path, capsys):
    """An offline record, read back by W&B's own `wandb leet inspect --json`."""
    directory = shutil.copytree("runs/first", tmp_path / "first")
    config = directory / "config.yaml"
    config.write_text(config.read_text().replace("wandb: disabled", "wandb: offline"))
    path = CheckpointStore(directory / "checkpoints").paths()[-1]
    checkpoint.save(path, {**checkpoint.load(path), "tracking": {"wandb_id": "abcd1234", "wandb_step": 20}})
    report = made(tmp_path / "out", str(directory), "runs/second", "--no-videos", "--wandb")
    assert "second has no W&B run; its report is in" in capsys.readouterr().out
    [record] = (directory / "wandb").glob("offline-run-*-abcd1234")
    [file] = record.glob("*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    [row] = [line["history"] for line in lines if line["type"] == "history"]
    assert row["step"]["num"] == 22
    assert row["item"]["env_steps"] == checkpoint.load(path)["env_steps"] > 0
    names = {key.split(".")[0] for key in row["item"] if key.startswith("report/")}
    assert names == {"report/page", *(f"report/{Path(f['file']).stem}" for f in report["figures"])}
    pages = list((record / "files" / "media" / "html").rglob("*.html"))
    assert [page.read_text() for page in pages] == [(tmp_path / "out" / "report.html").read_text()]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("measured", "success"), [1.0, 2.0]),
        (("measured",), [1]),
        (("summary", "iqm", 0, "estimate"), "x"),
        (("train_gap",), "x"),
        (("provenance", "config", "family"), 1.5),
        (("provenance", "config"), [1]),
        (("returns",), "x"),
        (("tasks",), 10**400),
    ],
)
def test_an_evaluation_of_another_shape_is_left_out_by_name(place, value, tmp_path):
    result = evaluation_of_a_run(tmp_path)
    data = json.loads(result.read_text())
    box = data
    for key in place[:-1]:
        box = box[key]
    assert place[-1] in box or isinstance(box, list)
    box[place[-1]] = value
    result.write_text(json.dumps(data))
    with pytest.raises(UsageError, match=rf"{result.name} is not an evaluation of metarl: ") as caught:
        read_evaluation(result)
    assert len(str(caught.value)) < 500 and str(caught.value).endswith("make it again with metarl evaluate RUN")


def evaluation_of_a_run(folder: Path) -> Path:
    """What a run of two tasks saves."""
    tiny = "training.tasks=2 training.envs_per_task=2 evaluation.tasks=2 evaluation.envs_per_task=2 family.horizon=5"
    options = f"--family point_goal --name r {tiny} training.iterations=1 evaluation.seeds=1 tracking.wandb=disabled"
    assert cli.main(["train", "--runs-dir", str(folder), *options.split()]) == 0
    (saved,) = folder.glob("r/evaluation/*.json")
    assert read_evaluation(saved).source == Source("r", 1, 40)
    return saved
