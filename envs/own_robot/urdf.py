"""URDF files for MuJoCo, with support for packages, fixed links as bodies, and visuals."""

from __future__ import annotations

import itertools
import os
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import mujoco
import numpy as np

MESHES = (".stl", ".obj", ".msh")
"""Mesh files that MuJoCo reads."""
SIZES = {"box": ("size",), "cylinder": ("radius", "length"), "sphere": ("radius",), "capsule": ("radius", "length")}
"""Attributes of a shape's size."""
NO_SIZE = "has no size"
WRONG_TYPE = f"is none of {', '.join(MESHES)}"
"""End of a message about a mesh file of another type."""
ABOVE = 6
"""Number of folders that are searched for packages: the URDF's own, and those above it."""


@dataclass
class Urdf:
    """A URDF that MuJoCo can read, in which each mesh file has a unique name."""

    root: ElementTree.Element
    meshes: dict[str, Path] = field(default_factory=dict)
    """File of each mesh by its name in `root`."""
    remarks: list[tuple[str, str]] = field(default_factory=list)
    """Remarks on differences from the file, (subject, text) each."""

    def spec(self) -> mujoco.MjSpec:
        """Return a new specification; ValueError as MuJoCo raises it."""
        spec = mujoco.MjSpec.from_string(ElementTree.tostring(self.root, encoding="unicode"))
        for mesh in spec.meshes:
            mesh.file = str(self.meshes[mesh.file])
        return spec


@dataclass(frozen=True)
class Places:
    """Folders in which a URDF's meshes are searched."""

    urdf: Path
    robot: str
    """Name of the robot in the URDF."""
    folder: Path
    """Folder of meshes in the compiler's settings."""
    stripped: bool
    """Whether the compiler uses only the last part of a path."""

    def find(self, name: str) -> tuple[Path | None, str]:
        """Return the file of a mesh, or None and the reason.

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
        return found, f"is missing{why or f' ({places[0]})'}"

    @property
    def _above(self) -> list[Path]:
        """Return the URDF's folder and those above it, nearest first."""
        return list(self.urdf.parents)[:ABOVE]

    def _within_package(self) -> Iterator[Path]:
        for place in self._above:
            yield place
            if (place / "package.xml").is_file():
                return

    def _packages(self, name: str) -> list[Path]:
        """Return the folders of a package: among those above the URDF and those beside them, nearest first.

        The name in package.xml counts; a folder with another name in it is used only if there is no other.
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
        """Return folders that may be the robot's own package under another name, without a package.xml; none if the
        package is not named after the robot: it is another one, which may have files of the same names."""
        own = any(name and (package == name or package.startswith(f"{name}_")) for name in (self.robot, self.urdf.stem))
        known = any((place / "package.xml").is_file() for place in self._above)
        return self._above if own and not known else []


FEW = 4
"""Most names in a remark."""


def placed(*parts: str | Path) -> Path:
    """Join parts to a path, and remove `..` textually as MuJoCo does."""
    return Path(os.path.normpath(Path(*parts)))


def _few(names: list[str]) -> str:
    """Return the first names and the number of others."""
    return ", ".join(names if len(names) <= FEW else [*names[: FEW - 1], f"and {len(names) - FEW + 1} more"])


PLACEHOLDER = 1e-4
"""Largest mass of a link that is a frame rather than a body, kg."""


def read_urdf(path: Path, root: ElementTree.Element) -> Urdf:
    """Read a URDF, find its meshes, and keep fixed links as bodies (feet are often such) and visuals.

    A visual that MuJoCo cannot read is left out and named in a remark; ValueError names such a collision.
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
    if frames := _placeholders(root):
        text = f"{_few(frames)}: no body has such an inertia, its products are left out"
        urdf.remarks.append(("placeholder inertias", text))
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
    """Return MuJoCo's settings in a URDF; they are added if there are none."""
    extension = root.find("mujoco")
    if extension is None:
        extension = ElementTree.SubElement(root, "mujoco")
    compiler = extension.find("compiler")
    return ElementTree.SubElement(extension, "compiler") if compiler is None else compiler


def _parts(root: ElementTree.Element) -> Iterator[tuple[ElementTree.Element, ElementTree.Element]]:
    """Yield (link, visual or collision)."""
    for link in root.iter("link"):
        for part in [*link.findall("visual"), *link.findall("collision")]:
            yield link, part


def _shape(part: ElementTree.Element) -> str:
    """Describe the shape of a visual or collision in words."""
    mesh = part.find("geometry/mesh")
    if mesh is not None:
        return f"mesh {mesh.get('filename', '')!r}"
    return next((shape.tag for shape in part.iterfind("geometry/*") if isinstance(shape.tag, str)), "nothing")


def _complete(part: ElementTree.Element, places: Places, meshes: dict[str, Path]) -> str | None:
    """Rename the mesh file of a visual or collision; returns what is wrong with it, if something is."""
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
    """Return a unique name for a mesh file: MuJoCo takes two of one name for one mesh."""
    known = next((name for name, other in meshes.items() if other == file), None)
    if known is not None:
        return known
    taken = {Path(name).stem for name in meshes}
    others = (f"{file.stem}_{i}" for i in itertools.count(2))
    stem = next(s for s in itertools.chain([file.stem], others) if s not in taken)
    meshes[stem + file.suffix] = file
    return stem + file.suffix


def _package_name(folder: Path) -> str:
    """Return a package's name in package.xml; without one, the folder's name."""
    try:
        return (ElementTree.parse(folder / "package.xml").findtext("name") or "").strip()
    except (OSError, ElementTree.ParseError):
        return folder.name


def _unreadable(urdf: Urdf) -> Iterator[tuple[str, str]]:
    """Remove visuals whose mesh MuJoCo cannot read if the robot does not compile; returns (reason, what) for each."""
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
    """Return the reason why a specification does not compile; None if it does."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are given where the robot is used
            spec.compile()
    except ValueError as error:
        return " ".join(str(error).split())
    return None


def _placeholders(root: ElementTree.Element) -> list[str]:
    """Take the products out of inertias that no body can have, where they are of a link with next to no mass.

    Such a link is a frame, and its inertia a placeholder, as 1e-6 throughout. Returns the names of the links.
    """
    names = []
    for link in root.iter("link"):
        mass, inertia = link.find("inertial/mass"), link.find("inertial/inertia")
        if mass is None or inertia is None or not 0 < _number(mass.get("value", "")) <= PLACEHOLDER:
            continue
        xx, xy, xz, yy, yz, zz = (_number(inertia.get(f"i{a}", "0")) for a in ("xx", "xy", "xz", "yy", "yz", "zz"))
        matrix = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
        if (
            np.isfinite(matrix).all()
            and min(xx, yy, zz) > 0
            and np.linalg.eigvalsh(matrix)[0] <= 1e-9 * np.trace(matrix)
        ):
            for product in ("ixy", "ixz", "iyz"):
                inertia.set(product, "0")
            names.append(link.get("name", ""))
    return names
