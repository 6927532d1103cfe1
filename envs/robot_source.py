"""Where a robot comes from: MJCF, URDF, or a function that returns an MjSpec; and all files that it is made of."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mujoco

MESHES = (".stl", ".obj", ".msh")
"""Mesh files that MuJoCo reads."""


def is_function(model: str) -> bool:
    """Whether it names a function, `module:function` or `file.py:function`, and not a file."""
    return ":" in model and not Path(model).exists() and Path(model).suffix.lower() not in (".xml", ".mjcf", ".urdf")


def read_model(model: str) -> mujoco.MjSpec:
    """A new specification with all that the model has; ValueError says what is wrong with it."""
    if is_function(model):
        text, assets = _call(model)
        return mujoco.MjSpec.from_string(text, assets={str(path): data for path, data in assets.items()})
    path = Path(model)
    if not path.is_file():
        raise ValueError(
            f"no robot {model}; give an MJCF or URDF file, or a function that returns an MjSpec as "
            "module:function or file.py:function"
        )
    try:
        text = path.read_text(encoding="utf-8")
        return _read_urdf(path) if _root(text, path).tag == "robot" else mujoco.MjSpec.from_file(str(path))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"{model}: {_one_line(error)}") from error


def copy_model(model: str, folder: Path) -> Path:
    """Copy all files that the model is made of under the folder; returns the copy of the model itself.

    What a function made is written out as MJCF, so the copy runs no code.
    """
    if is_function(model):
        text, assets = _call(model)
        files = {Path("robot.xml"): text.encode(), **assets}
        main = Path("robot.xml")
    else:
        paths = [Path(p).resolve() for p in _dependencies(Path(model))]
        top = Path(os.path.commonpath([p.parent for p in paths]))
        files = {p.relative_to(top): p.read_bytes() for p in paths}
        main = Path(model).resolve().relative_to(top)
    for path, data in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return folder / main


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _root(text: str, path: Path) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(f"{path.name} is not valid XML: {error}") from None


def _call(model: str) -> tuple[str, dict[Path, bytes]]:
    """(MJCF, files that it names by where it names them) of what a function returns.

    The robot is what is written: so a copy of the text is the same robot to the last bit.
    """
    where, _, name = model.rpartition(":")
    try:
        function = getattr(_module(where), name)
        spec = function()
    except Exception as error:
        raise ValueError(f"{model} failed: {type(error).__name__}: {_one_line(error)}") from error
    if not isinstance(spec, mujoco.MjSpec):
        raise ValueError(f"{model} returned {type(spec).__name__}; it must return a mujoco.MjSpec")
    try:
        text = _written(spec)
    except ValueError as error:
        raise ValueError(f"the MjSpec that {model} returned does not compile: {_one_line(error)}") from error
    assets = {}
    for file, subfolder in _asset_files(spec):
        relative = Path(subfolder, file)
        source = Path(spec.modelfiledir, relative)
        assets[relative] = spec.assets[file] if file in spec.assets else source.read_bytes()
    return text, assets


def _written(spec: mujoco.MjSpec) -> str:
    """As MJCF, with a `settotalmass` that it has: MuJoCo warns of it, but who reads the text takes care of it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "compiler attribute 'settotalmass'")
        spec.compile()
        return spec.to_xml()


def _module(where: str) -> Any:
    if not where.endswith(".py"):
        sys.path.insert(0, os.getcwd())
        try:
            return importlib.import_module(where)
        finally:
            sys.path.remove(os.getcwd())
    path = Path(where).resolve()
    if not path.is_file():
        raise FileNotFoundError(f"no file {where}")
    found = importlib.util.spec_from_file_location(path.stem, path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def _asset_files(spec: mujoco.MjSpec) -> Iterator[tuple[str, str]]:
    """(file, folder that it is relative to) of meshes, heightfields and textures."""
    for asset in (*spec.meshes, *spec.hfields, *spec.textures):
        if asset.file:
            yield asset.file, spec.texturedir if asset in spec.textures else spec.meshdir


def _dependencies(path: Path) -> list[str]:
    if _root(path.read_text(encoding="utf-8"), path).tag != "robot":
        return list(mujoco.mju_getXMLDependencies(str(path)))
    meshes = (_find_mesh(path, mesh.get("filename", "")) for mesh in ElementTree.parse(path).iter("mesh"))
    return [str(path), *{str(m) for m in meshes if m is not None}]


def _find_mesh(urdf: Path, name: str) -> Path | None:
    """The file of a URDF's mesh: `package://` is looked for in the folder of the URDF and those above it."""
    name = name.removeprefix("file://")
    parts = Path(name.split("://", 1)[-1])
    tails = [parts, Path(*parts.parts[1:])] if "://" in name and len(parts.parts) > 1 else [parts]
    folders = [urdf.resolve().parent, *urdf.resolve().parents[1:5]]
    for folder in folders:
        for tail in tails:
            if (folder / tail).is_file():
                return folder / tail
    return None


def _read_urdf(path: Path) -> mujoco.MjSpec:
    """A URDF with its meshes found, its fixed links kept as bodies (feet are often such), its pictures kept."""
    tree = ElementTree.parse(path)
    root = tree.getroot()
    for link in root.iter("link"):
        for part in [*link.findall("visual"), *link.findall("collision")]:
            mesh = part.find("geometry/mesh")
            if mesh is None:
                continue
            found = _find_mesh(path, mesh.get("filename", ""))
            usable = found is not None and found.suffix.lower() in MESHES
            if usable:
                mesh.set("filename", str(found))
            elif part.tag == "visual":  # a picture less
                link.remove(part)
            else:
                problem = "is not to be found" if found is None else f"is none of {', '.join(MESHES)}"
                raise ValueError(
                    f"collision mesh {mesh.get('filename')!r} of link {link.get('name')!r} {problem}; put it beside "
                    "the URDF, or give the link a box, cylinder or sphere to collide with"
                )
    extension = root.find("mujoco")
    if extension is None:
        extension = ElementTree.SubElement(root, "mujoco")
    compiler = extension.find("compiler")
    if compiler is None:
        compiler = ElementTree.SubElement(extension, "compiler")
    compiler.attrib.pop("meshdir", None)
    for key, value in (("strippath", "false"), ("discardvisual", "false"), ("fusestatic", "false")):
        compiler.set(key, value)
    return mujoco.MjSpec.from_string(ElementTree.tostring(root, encoding="unicode"))
