"""A URDF as MuJoCo reads it, with what MuJoCo lacks: packages, fixed links as bodies, pictures."""

from __future__ import annotations

import itertools
import os
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import mujoco

MESHES = (".stl", ".obj", ".msh")
"""Mesh files that MuJoCo reads."""
SIZES = {"box": ("size",), "cylinder": ("radius", "length"), "sphere": ("radius",), "capsule": ("radius", "length")}
"""What gives a shape its size."""
NO_SIZE = "has no size"
WRONG_TYPE = f"is none of {', '.join(MESHES)}"
"""What is wrong with a visual or a collision."""
ABOVE = 6
"""Folders that are searched for packages: the URDF's own, and those above it."""


@dataclass
class Urdf:
    """A URDF that MuJoCo can read, whose meshes have a name of their own each."""

    root: ElementTree.Element
    meshes: dict[str, Path] = field(default_factory=dict)
    """File of each mesh by the name that the URDF gives it now."""
    remarks: list[tuple[str, str]] = field(default_factory=list)
    """(subject, what to know) of what is otherwise than in the file."""

    def spec(self) -> mujoco.MjSpec:
        """A new specification; ValueError as MuJoCo gives it."""
        spec = mujoco.MjSpec.from_string(ElementTree.tostring(self.root, encoding="unicode"))
        for mesh in spec.meshes:
            mesh.file = str(self.meshes[mesh.file])
        return spec


@dataclass(frozen=True)
class Places:
    """Where a URDF's meshes may be."""

    urdf: Path
    robot: str
    """The URDF's name."""
    folder: Path
    """Of meshes, by the compiler's settings."""
    stripped: bool
    """Whether the compiler takes the last part of a path alone."""

    def find(self, name: str) -> tuple[Path | None, str]:
        """(file of a mesh or None, why there is none).

        MuJoCo's rule comes first: the name, or its last part, in the compiler's folder. Then `package://` is the
        package of that name, and a bare path may be relative to the URDF or to a folder above it in its package.
        """
        bare = name.replace("\\", "/").removeprefix("file://")
        scheme, _, rest = bare.rpartition("://")
        places, why = [placed(self.folder, Path(bare).name if self.stripped else bare)], ""
        if not scheme:
            places += [placed(place, bare) for place in self._within_package()]
        else:
            places = places if self.stripped else []
            package, _, inside = rest.partition("/")
            packages = self._packages(package)
            places += [placed(place, inside) for place in packages or self._own_package(package)]
            if not packages:
                why = (
                    f": no folder above {self.urdf.name}, or beside one of them, is called {package!r} or has a "
                    "package.xml with that <name>"
                )
        found = next((place for place in places if place.is_file()), None)
        return found, f"is not to be found{why or f' ({places[0]})'}"

    @property
    def _above(self) -> list[Path]:
        """The URDF's folder and those above it, nearest first."""
        return list(self.urdf.parents)[:ABOVE]

    def _within_package(self) -> Iterator[Path]:
        for place in self._above:
            yield place
            if (place / "package.xml").is_file():
                return

    def _packages(self, name: str) -> list[Path]:
        """Folders of the package of a name: above the URDF, and beside those that are above it; nearest first.

        What package.xml says counts; a folder that has another name there is taken where nothing else is.
        """
        near: list[Path] = []
        for place in self._above:
            near.append(place)
            try:
                near += sorted(other for other in place.iterdir() if other.is_dir())
            except OSError:  # not to be read by this user
                continue
        return [place for place in near if _package_name(place) == name] or [p for p in near if p.name == name]

    def _own_package(self, package: str) -> list[Path]:
        """Where the robot's own package may be by another name, as no package.xml tells; nowhere if the package is not
        called after the robot: it is another one, which may have files of the same names."""
        own = any(name and (package == name or package.startswith(f"{name}_")) for name in (self.robot, self.urdf.stem))
        known = any((place / "package.xml").is_file() for place in self._above)
        return self._above if own and not known else []


FEW = 4
"""Names in a remark at most."""


def placed(*parts: str | Path) -> Path:
    """The path that parts make, `..` taken out of it as MuJoCo does, by the letter."""
    return Path(os.path.normpath(Path(*parts)))


def _few(names: list[str]) -> str:
    """The first of the names, and how many more there are."""
    return ", ".join(names if len(names) <= FEW else [*names[: FEW - 1], f"and {len(names) - FEW + 1} more"])


def read_urdf(path: Path, root: ElementTree.Element) -> Urdf:
    """A URDF with its meshes found, its fixed links kept as bodies (feet are often such), its pictures kept.

    What is no more than a picture is left out, and named in a remark, where MuJoCo cannot read it; ValueError names
    what touches and cannot be read.
    """
    urdf = Urdf(root)
    settings = _compiler(root)
    folder = path.parent / settings.get("meshdir", settings.get("assetdir", ""))
    places = Places(path, root.get("name", ""), folder, settings.get("strippath") == "true")
    dropped: dict[str, list[str]] = {}  # by what is wrong
    for link, part in _parts(root):
        problem = _complete(part, places, urdf.meshes)
        if problem and part.tag == "visual":
            link.remove(part)
            dropped.setdefault(problem, []).append(f"{_shape(part)} of {link.get('name')}")
        elif problem:
            remedy = "give the link a box, cylinder or sphere to collide with"
            if problem == WRONG_TYPE:
                remedy = f"convert it to one of these, or {remedy}"
            elif problem != NO_SIZE and part.find("geometry/mesh") is not None:
                remedy = f"put it where it is looked for, or {remedy}"
            raise ValueError(f"collision {_shape(part)} of link {link.get('name')!r} {problem}; {remedy}")
    for key in ("meshdir", "assetdir"):
        settings.attrib.pop(key, None)
    settings.set("strippath", "false")
    if settings.get("discardvisual") is None:
        settings.set("discardvisual", "false")
    settings.set("fusestatic", "false")
    for problem, name in _unreadable(urdf):
        dropped.setdefault(problem, []).append(name)
    if dropped:
        named = "; ".join(f"{_few(names)}: {problem}" for problem, names in dropped.items())
        urdf.remarks.append(("left out", f"{sum(map(len, dropped.values()))} visuals: {named}"))
    fixed = [joint.find("child") for joint in root.iter("joint") if joint.get("type") == "fixed"]
    if fixed:
        names = ", ".join(child.get("link", "") for child in fixed if child is not None)
        urdf.remarks.append(
            ("fixed links", f"{names}: bodies of their own, which MuJoCo would fuse with their parents")
        )
    return urdf


def _compiler(root: ElementTree.Element) -> ElementTree.Element:
    """MuJoCo's settings in a URDF, added if there are none."""
    extension = root.find("mujoco")
    if extension is None:
        extension = ElementTree.SubElement(root, "mujoco")
    compiler = extension.find("compiler")
    return ElementTree.SubElement(extension, "compiler") if compiler is None else compiler


def _parts(root: ElementTree.Element) -> Iterator[tuple[ElementTree.Element, ElementTree.Element]]:
    """(link, visual or collision)."""
    for link in root.iter("link"):
        for part in [*link.findall("visual"), *link.findall("collision")]:
            yield link, part


def _shape(part: ElementTree.Element) -> str:
    """What a visual or collision shows, in words."""
    mesh = part.find("geometry/mesh")
    if mesh is not None:
        return f"mesh {mesh.get('filename', '')!r}"
    return next((shape.tag for shape in part.iterfind("geometry/*") if isinstance(shape.tag, str)), "nothing")


def _complete(part: ElementTree.Element, places: Places, meshes: dict[str, Path]) -> str | None:
    """Name the mesh file of a visual or collision anew; what is wrong with it, if something is."""
    for shape in part.iterfind("geometry/*"):
        given = [text for name in SIZES.get(shape.tag, ()) for text in shape.get(name, "").split()]
        if any(_number(text) == 0 for text in given):
            return NO_SIZE
    mesh = part.find("geometry/mesh")
    if mesh is None:
        return None
    if any(_number(text) == 0 for text in mesh.get("scale", "1").split()):
        return NO_SIZE
    found, problem = places.find(mesh.get("filename", ""))
    if found is None:
        return problem
    if found.suffix.lower() not in MESHES:
        return WRONG_TYPE
    mesh.set("filename", _own_name(found, meshes))
    return None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:  # MuJoCo says what is wrong with it
        return float("nan")


def _own_name(file: Path, meshes: dict[str, Path]) -> str:
    """The name of a mesh file, other than that of any other file: MuJoCo takes two of one name for one mesh."""
    known = next((name for name, other in meshes.items() if other == file), None)
    if known is not None:
        return known
    taken = {Path(name).stem for name in meshes}
    others = (f"{file.stem}_{i}" for i in itertools.count(2))
    stem = next(s for s in itertools.chain([file.stem], others) if s not in taken)
    meshes[stem + file.suffix] = file
    return stem + file.suffix


def _package_name(folder: Path) -> str:
    """What package.xml calls a package; without one, the folder's name."""
    try:
        return (ElementTree.parse(folder / "package.xml").findtext("name") or "").strip()
    except (OSError, ElementTree.ParseError):
        return folder.name


def _unreadable(urdf: Urdf) -> Iterator[tuple[str, str]]:
    """Take out the visuals whose mesh MuJoCo cannot read, if the robot does not compile with them: (why, what) each."""
    if _compiles(urdf.spec()) is None:
        return
    for link, part in _parts(urdf.root):
        mesh = part.find("geometry/mesh")
        if part.tag != "visual" or mesh is None:
            continue
        alone = mujoco.MjSpec()
        alone.add_mesh(name="mesh", file=str(urdf.meshes[mesh.get("filename", "")]))
        alone.worldbody.add_geom(
            type=mujoco.mjtGeom.mjGEOM_MESH, meshname="mesh", contype=0, conaffinity=0, density=0, group=1
        )
        problem = _compiles(alone)
        if problem is not None:
            link.remove(part)
            yield f"MuJoCo cannot read it ({problem})", f"{_shape(part)} of {link.get('name')}"


def _compiles(spec: mujoco.MjSpec) -> str | None:
    """Why a specification does not compile; None if it does."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are given where the robot is used
            spec.compile()
    except ValueError as error:
        return " ".join(str(error).split())
    return None
