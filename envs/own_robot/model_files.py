"""Reading a robot from MJCF, URDF, or a function that returns an MjSpec, with all files of the model; copying it."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import mujoco
import numpy as np

from metarl.envs import code
from metarl.envs.own_robot.model_difference import difference
from metarl.envs.own_robot.numbers import require_numbers
from metarl.envs.own_robot.urdf import placed, read_urdf

FOLDERS = {"mesh": "meshdir", "hfield": "meshdir", "skin": "meshdir", "flexcomp": "meshdir", "texture": "texturedir"}
"""Compiler attribute that names the folder of an element's files."""
CUBE = ("fileright", "fileleft", "fileup", "filedown", "filefront", "fileback")
"""Attributes that name a texture's files, one per side."""
ASSETS = "assets"
"""Folder of a copy's files, each in a subfolder named by its content."""
XACRO = re.compile(rb"<xacro:|\sxacro:\w+\s*=")
COMMENT = re.compile(rb"<!--.*?-->", re.DOTALL)
WRITTEN = 1e-4
"""Relative rounding error of a specification that is written out with 6 digits."""


File = Path | bytes | ElementTree.Element
"""A file of a model: its path, its content, or another model that parts are attached from."""


@dataclass
class ModelFiles:
    """A robot's model and all its files."""

    spec: mujoco.MjSpec
    root: ElementTree.Element
    """The model as one XML tree, which names its files by absolute path, or by a key of `files`."""
    files: dict[str, File] = field(default_factory=dict)
    remarks: list[tuple[str, str]] = field(default_factory=list)
    """Remarks on how the model was read, (subject, text) each."""
    read: set[Path] = field(default_factory=set)
    """Files of MJCF that it was read from: its own, those that it includes, and those that parts are attached from."""


def is_function(model: str) -> bool:
    """Return whether it names a function, `module:function` or `file.py:function`, and not a file."""
    return code.is_function(model) and Path(model).suffix.lower() not in (".xml", ".mjcf", ".urdf")


def open_model(model: str) -> ModelFiles:
    """Read a model with all its files; ValueError says what is wrong with it, and what to do.

    If it names a function, its code is run here and nowhere else.
    """
    if is_function(model):
        return _call(model)
    path = Path(model).absolute()
    if not path.is_file():
        raise ValueError(
            f"no robot {model}; give an MJCF or URDF file, or a function that returns an MjSpec as "
            "module:function or file.py:function"
        )
    if path.suffix == ".py":
        raise ValueError(f"{model} is a Python file; name the function in it that returns an MjSpec: {model}:FUNCTION")
    try:
        root = _parse(path)
        if root.tag == "robot":
            require_numbers(root)
            urdf = read_urdf(path, root)
            return ModelFiles(_oriented(urdf.spec()), urdf.root, dict(urdf.meshes), urdf.remarks)
        models: dict[str, ElementTree.Element] = {}
        read: set[Path] = set()
        root = _gathered(path, models, read)  # before MuJoCo, which hangs on pipes and crashes on recursive models
        require_numbers(root)
        for name, part in models.items():
            require_numbers(part, f"{Path(name).name}: ")
        spec = mujoco.MjSpec.from_file(str(path))
        _settle(root, path, spec, spec.strippath)
        for name, part in models.items():
            _settle(part, Path(name), mujoco.MjSpec.from_file(name), spec.strippath)
        _require_one_inertia(spec)
        return ModelFiles(_oriented(spec), root, {**models}, read=read)
    except RecursionError:
        raise ValueError(f"{model}: its elements are nested too deep") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{model}: {_one_line(error)}") from error


def _require_one_inertia(spec: mujoco.MjSpec) -> None:
    """Raise ValueError if an attached part's file has its own settings for inertias, which would undo edits of them."""
    for body in spec.bodies[1:]:
        own, whole = body.compiler, spec.compiler
        explicit = bool(body.explicitinertial)
        for name, matters in (
            ("boundmass", own.boundmass > 0),
            ("boundinertia", own.boundinertia > 0),
            ("balanceinertia", bool(own.balanceinertia)),
            ("inertiafromgeom", explicit and own.inertiafromgeom == mujoco.mjtInertiaFromGeom.mjINERTIAFROMGEOM_TRUE),
            ("inertiagrouprange", not explicit),
        ):
            if matters and not np.array_equal(getattr(own, name), getattr(whole, name)):
                raise ValueError(
                    f"body {body.name!r} is attached from a model whose compiler sets {name} differently from the "
                    "whole model; set it in both, or in neither and give the body its <inertial>"
                )


def _oriented(spec: mujoco.MjSpec) -> mujoco.MjSpec:
    """Convert every orientation to a quaternion: any other notation would override an edit of `quat`.

    Unit and order of angles are those of the element's file.
    """
    turned = mujoco.mjtOrientation.mjORIENTATION_QUAT
    for element in (*spec.bodies[1:], *spec.frames, *spec.geoms, *spec.sites, *spec.cameras):
        for notation, quat in (("alt", "quat"), ("ialt", "iquat")):
            given = getattr(element, notation, None)
            if given is not None and given.type != turned:
                degree, order = bool(element.compiler.degree), element.compiler.eulerseq
                setattr(element, quat, mujoco.MjSpec.resolve_orientation(degree, order, given))
                given.type = turned
    return spec


def copy_model(model: str, folder: Path) -> Path:
    """Copy a model with all its files under a folder, and nowhere else; returns the path of the copy.

    A model that a function made is written out as MJCF. ValueError if the copy would be another robot.
    """
    source = open_model(model)
    target = folder / ("robot.xml" if is_function(model) else Path(model).name)
    whole = not is_function(model) and _is_whole(Path(model))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(Path(model).read_bytes() if whole else _pack(source.root, source.files, folder, folder))
    differs = difference(_compiled(source.spec, model), _compiled(open_model(str(target)).spec, str(target)))
    if differs:
        raise ValueError(f"{model} cannot be copied as it is: in the copy {differs}; write it as one MJCF file")
    return target


def parts_of_model(model: str) -> list[Path]:
    """Return the files that a model's file names, directly or in another; ValueError as `open_model` raises it."""
    opened = open_model(model)
    roots = [opened.root, *(file for file in opened.files.values() if isinstance(file, ElementTree.Element))]
    names = [element.get(attribute, "") for root in roots for element, attribute in _named(root)]
    named = {file for name in names if isinstance(file := opened.files.get(name, Path(name)), Path)}
    return sorted((opened.read | named) - {Path(model).absolute()})


def _compiled(spec: mujoco.MjSpec, what: str) -> mujoco.MjModel:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are given where the robot is used
            return spec.compile()
    except ValueError as error:
        raise ValueError(f"{what} does not compile: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _parse(path: Path) -> ElementTree.Element:
    """Parse a model file as XML with its comments; NUL bytes at its end are ignored, as MuJoCo does."""
    data = path.read_bytes().rstrip(b"\0 \r\n\t")
    if path.suffix == ".xacro" or XACRO.search(COMMENT.sub(b"", data)):  # xacro's output keeps its comments
        plain = f"{path.stem.removesuffix('.urdf')}_plain.urdf"
        raise ValueError(f"{path.name} is written in xacro; run xacro first: xacro {path.name} > {plain}")
    if b"\0" in data:
        raise ValueError(f"{path.name} has a NUL byte in line {data[: data.index(0)].count(10) + 1}: it is no text")
    try:
        return _xml(data)
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        try:
            return _xml(COMMENT.sub(b"", data))  # MuJoCo takes comments that XML does not, with -- in them
        except (ElementTree.ParseError, LookupError, ValueError):
            raise ValueError(f"{path.name} is not valid XML: {error}") from None


def _xml(data: bytes) -> ElementTree.Element:
    return ElementTree.fromstring(data, ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True)))


def _is_whole(path: Path) -> bool:
    """Return whether a model names no other file, so that it can be copied byte by byte."""
    root = _parse(path)
    return root.find(".//include") is None and next(_named(root), None) is None


def _named(root: ElementTree.Element) -> Iterator[tuple[ElementTree.Element, str]]:
    """Yield (element, attribute) of every file that a model names."""
    if root.tag == "robot":
        yield from ((mesh, "filename") for mesh in root.iterfind("link/*/geometry/mesh"))
        return
    for element in root.iter():
        if element.tag in FOLDERS or element.tag == "model":
            yield from ((element, key) for key in ("file", *CUBE) if element.get(key))


def _gathered(
    path: Path, models: dict[str, ElementTree.Element], read: set[Path], within: tuple[Path, ...] = ()
) -> ElementTree.Element:
    """Parse an MJCF file, insert what it includes, and make paths of `<model>` elements absolute.

    models: receives the models that parts are attached from, by path. read: receives all files that are read. within:
    the files that attach parts of this one.
    """
    if path in within:
        raise ValueError(f"{path.name} attaches parts of itself by <model>")
    seen: set[Path] = set()
    root = _included(path, path.parent, seen)
    read |= seen
    for element, attribute in _named(root):
        name = element.get(attribute, "")
        if element.tag == "model" and name not in models:
            if not Path(name).is_file():
                raise ValueError(f"the file of <model> {element.get('name')!r} is missing ({name})")
            models[name] = _gathered(Path(name), models, read, (*within, path))
    return root


def _included(path: Path, main: Path, seen: set[Path]) -> ElementTree.Element:
    """Parse a file and insert what it includes.

    main: folder of the model, where MuJoCo looks for included files first, and beside the including file second. seen:
    the files of the model so far.
    """
    if path in seen:
        raise ValueError(f"{path.name} is included twice")
    seen.add(path)
    root = _parse(path)
    for element, attribute in _named(root):
        if element.tag == "model":
            element.set(attribute, str(placed(path.parent, element.get(attribute, "").replace("\\", "/"))))
    for parent in list(root.iter()):
        for child in [c for c in parent if c.tag == "include"]:
            name = child.get("file", "").replace("\\", "/")
            places = [placed(folder, name) for folder in (main, path.parent)]
            file = next((place for place in places if place.is_file()), None)
            if file is None:
                raise ValueError(f"the file {name!r} that {path.name} includes is missing ({places[0]})")
            at = list(parent).index(child)
            parent[at : at + 1] = list(_included(file, main, seen))
    return root


def _settle(root: ElementTree.Element, path: Path, spec: mujoco.MjSpec, stripped: bool) -> None:
    """Name each file of a model by its absolute path, as MuJoCo finds it; ValueError names a missing one.

    spec: MuJoCo's specification of the model. stripped: whether the whole model strips paths of files.
    """
    for element, attribute in _named(root):
        if element.tag != "model":
            name = Path(element.get(attribute, "").replace("\\", "/"))
            folder = getattr(spec, FOLDERS[str(element.tag)])
            place = placed(path.parent, folder, name.name if stripped else name)
            if not place.is_file():
                raise ValueError(f"the file of {element.tag} {element.get('name') or name.stem!r} is missing ({place})")
            element.set(attribute, str(place))
    for compiler in root.iter("compiler"):
        for key in ("meshdir", "texturedir", "assetdir", "strippath"):
            compiler.attrib.pop(key, None)


def _pack(root: ElementTree.Element, files: dict[str, File], folder: Path, here: Path) -> bytes:
    """Write a model's files under a folder by their content; returns the XML, with paths relative to `here`."""
    for element, attribute in _named(root):
        name = element.get(attribute, "")
        file = files.get(name, Path(name))
        if isinstance(file, ElementTree.Element):
            data = _pack(file, files, folder, folder / ASSETS / "model")
        else:
            data = file if isinstance(file, bytes) else file.read_bytes()
        target = folder / ASSETS / hashlib.sha256(data).hexdigest()[:16] / Path(name).name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        element.set(attribute, os.path.relpath(target, here))
    return ElementTree.tostring(root, encoding="utf-8")


def _call(model: str) -> ModelFiles:
    """Call a function and write its specification as MJCF, so that a copy of the text is the same robot to the bit."""
    try:
        spec = code.load(model)()
    except code.Absent as error:
        raise ValueError(f"{model} failed: {error}") from error
    except (Exception, SystemExit) as error:
        raise ValueError(f"{model} failed: {type(error).__name__}: {_one_line(error)}") from error
    if not isinstance(spec, mujoco.MjSpec):
        raise ValueError(f"{model} returned {type(spec).__name__}; it must return a mujoco.MjSpec")
    compiled = _compiled(spec, f"the MjSpec that {model} returned")
    placed, files = _placed(spec, compiled)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in `_compiled`
        text = placed.to_xml()
    written = mujoco.MjSpec.from_string(text, assets={k: v for k, v in files.items() if isinstance(v, bytes)})
    differs = difference(compiled, _compiled(written, f"the MJCF of what {model} returned"), WRITTEN)
    if differs:
        raise ValueError(
            f"{model} returned a robot that cannot be written out as MJCF: there {differs}; set it on the "
            "specification that is returned, not on one that is attached to it, or write the model as a file"
        )
    require_numbers(ElementTree.fromstring(text), f"{model}: ")
    made = (
        "model",
        f"what the code of {model.rpartition(':')[2]} returned when it was run, written out as MJCF to 6 digits",
    )
    return ModelFiles(written, ElementTree.fromstring(text), files, [made])


def _placed(spec: mujoco.MjSpec, model: mujoco.MjModel) -> tuple[mujoco.MjSpec, dict[str, File]]:
    """Return a copy of a specification that names files by absolute path or by a key, and the files in memory by key.

    model: the compiled specification, which has the paths of attached specifications' files, as MJCF does not.
    """
    placed, files = spec.copy(), {}
    placed.meshdir, placed.texturedir, placed.strippath = "", "", False

    def place(path: str) -> str:
        data = spec.assets.get(path, spec.assets.get(Path(path).name))
        if data is None:
            return str(Path(path).absolute())
        data = data.encode() if isinstance(data, str) else data
        name = f"{hashlib.sha256(data).hexdigest()[:16]}/{Path(path).name}"
        files[name] = data
        return name

    for kind, addresses in (
        ("meshes", model.mesh_pathadr),
        ("hfields", model.hfield_pathadr),
        ("textures", model.tex_pathadr),
        ("skins", model.skin_pathadr),
    ):
        for own, copied in zip(getattr(spec, kind), getattr(placed, kind), strict=True):
            if own.file:
                path = model.paths[addresses[own.id] :].split(b"\0", 1)[0].decode()
                copied.file = place(path)
    for own, copied in zip(spec.textures, placed.textures, strict=True):
        for i, side in enumerate(own.cubefiles):
            if side:
                copied.cubefiles[i] = place(str(Path(spec.modelfiledir, own.compiler.texturedir, side)))
    return placed, files
