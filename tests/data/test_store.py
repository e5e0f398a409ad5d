import io
import os
import stat
import struct
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from data_trees import Tree, kermany_paths

from expressivegan.data import archive, read_manifest
from expressivegan.data.decode import UnusableError
from expressivegan.data.store import kind_of, open_store
from expressivegan.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:.*EVERY IMAGE COUNTS AS A PATIENT")


def zipped(folder: Path, name: str = "set.zip", above: str = "", method: int = zipfile.ZIP_DEFLATED) -> Path:
    path = folder.parent / name
    with zipfile.ZipFile(path, "w", method) as packed:
        for file in sorted(folder.rglob("*")):
            packed.write(file, above + file.relative_to(folder).as_posix())
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("above", ["", "unpacked/"])
def test_an_archive_means_what_its_folder_means(tree: Tree, above: str, method: int) -> None:
    root = tree(kermany_paths(8))
    folder, packed = (read_manifest(p, progress=False) for p in (root, zipped(root, above=above, method=method)))
    assert packed.data_hash == folder.data_hash
    assert packed.content_hash == folder.content_hash
    assert packed.root.name == "set.zip"
    store = open_store(packed.root)
    assert {r.path.removeprefix(f"{above}chest_xray/") for r in packed.records} == {r.path for r in folder.records}
    for one, other in zip(packed.records, folder.records, strict=True):
        assert store.read(one.path) == (folder.root / other.path).read_bytes()


def test_many_threads_read_one_archive(tree: Tree) -> None:
    root = tree([f"{c}/{i}.png" for c in "ab" for i in range(40)])
    store = open_store(zipped(root))
    names = sorted(store.listing().files) * 3
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(store.read, names)) == [(root / n).read_bytes() for n in names]


def hostile_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for label in "ab":
            for i in range(8):
                packed.writestr(f"{label}/{i}.png", png(label + str(i)))
        for name in ("../escaped.png", "a/../../escaped.png", "/etc/escaped.png", "C:/escaped.png", "a\\escaped.png"):
            info = zipfile.ZipInfo("x")
            info.filename = info.orig_filename = name
            packed.writestr(info, png(name))
        link = zipfile.ZipInfo("a/link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        packed.writestr(link, "/etc/passwd")
        packed.writestr("a/bomb.png", bytes(64 << 20))
        packed.writestr("a/inner.zip", b"PK\x03\x04")
        packed.writestr("a/crc.png", png("crc"))
        packed.writestr("a/locked.png", png("locked"))
        packed.writestr("a/huge.png", png("huge"))
        packed.writestr("a/bz2.png", png("bz2"), zipfile.ZIP_BZIP2)
        with pytest.warns(UserWarning, match="Duplicate name"):
            packed.writestr("b/0.png", png("again"))
    data = bytearray(path.read_bytes())
    for name, field, value in (("a/locked.png", 8, b"\x01"), ("a/huge.png", 24, struct.pack("<I", 2**31))):
        at = data.rindex(b"PK\x01\x02", 0, data.rindex(name.encode()))
        data[at + field : at + field + len(value)] = value
    at = data.index(b"a/crc.png") + len("a/crc.png") + 60
    data[at] ^= 0xFF
    path.write_bytes(data)


def png(seed: str) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    pixels = np.random.default_rng(list(seed.encode())).integers(0, 256, (24, 28), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_hostile_members_are_named_and_never_touched(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "set.zip"
    path.parent.mkdir(parents=True)
    hostile_zip(path)
    manifest = read_manifest(path, progress=False)
    reasons = {r.path: r.reason for r in manifest.rejected}
    assert {name: reason for name, reason in reasons.items() if "escaped" in name} == {
        "../escaped.png": "its name in the archive leads out of it (..)",
        "a/../../escaped.png": "its name in the archive leads out of it (..)",
        "/etc/escaped.png": "its name in the archive is absolute",
        "C:/escaped.png": "its name in the archive is absolute",
        "a\\escaped.png": "its name in the archive holds a backslash",
    }
    assert "link" in reasons["a/link.png"]
    assert "bomb" in reasons["a/bomb.png"]
    assert "archive within the archive" in reasons["a/inner.zip"]
    assert "encrypted" in reasons["a/locked.png"]
    assert "more than 512 MiB" in reasons["a/huge.png"]
    assert "method 12" in reasons["a/bz2.png"]
    assert "damaged in the archive" in reasons["a/crc.png"]
    assert "twice" in reasons["b/0.png"]
    assert len(manifest.records) == 15
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["set.zip"]
    assert not Path("/etc/escaped.png").exists()


def test_overlapping_members_are_refused(tmp_path: Path) -> None:
    """A bomb may list the same bytes under many names."""
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as packed:
        for name in ("a/1.png", "a/2.png", "b/1.png"):
            packed.writestr(name, png(name))
    data = bytearray(path.read_bytes())
    first, second = (
        i for i in range(len(data)) if data[i : i + 4] == b"PK\x01\x02" and i < data.rindex(b"b/1.png") - 60
    )
    data[second + 42 : second + 46] = data[first + 42 : first + 46]  # where its bytes are
    path.write_bytes(data)
    refused = archive.ZipStore(path).listing().refused
    assert len(refused) == 1
    assert "overlaps" in next(iter(refused.values()))


@pytest.mark.parametrize("cut", [0, 3, 40, -10])
@pytest.mark.parametrize("suffix", ["zip", "npz"])
def test_a_broken_archive_is_one_sentence(tmp_path: Path, cut: int, suffix: str) -> None:
    whole = tmp_path / "whole.zip"
    with zipfile.ZipFile(whole, "w") as packed:
        packed.writestr("a/1.png", png("1"))
    path = tmp_path / f"set.{suffix}"
    path.write_bytes(whole.read_bytes()[:cut])
    with pytest.raises(DataError, match="is no readable ZIP archive"):
        read_manifest(path, progress=False)


def test_an_archive_of_nothing_but_traps(tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("../a/1.png", png("1"))
    with pytest.raises(DataError, match=r"of 1 refused, '\.\./a/1\.png'"):
        read_manifest(path, progress=False)


def test_unknown_members_are_not_read(tree: Tree) -> None:
    store = open_store(zipped(tree(["a/1.png"])))
    with pytest.raises(UnusableError, match="not in the archive"):
        store.read("../a/1.png")


def test_what_a_file_is_shows_inside(tmp_path: Path, tree: Tree) -> None:
    root = tree(["a/1.png"])
    packed = zipped(root).rename(tmp_path / "download")
    np.savez(tmp_path / "arrays.npz", a=np.zeros(3))
    (tmp_path / "arrays.npz").rename(tmp_path / "arrays")
    (tmp_path / "table.csv").write_text("path,label\n")
    (tmp_path / "saved.csv").write_text('{"format": "expressivegan-manifest"}\n')
    kinds = {p.name: kind_of(p) for p in tmp_path.iterdir()}
    assert kinds == {"set": "folder", "download": "zip", "arrays": "npz", "table.csv": "table", "saved.csv": None}
    assert kind_of(tmp_path / "nothing") is None
    with pytest.raises(DataError, match="does not exist"):
        open_store(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"no folder, no \.zip or \.npz archive and no table"):
        open_store(tmp_path / "saved.csv")
    assert len(open_store(packed).listing().files) == 1


# --- links and pipes --------------------------------------------------------------------------------------------------


def test_links_may_lead_within_the_set_and_not_out_of_it(tree: Tree, tmp_path: Path) -> None:
    outside = tree(["secret/1.png", "secret/2.png"], root="elsewhere")
    root = tree([f"{c}/{i}.png" for c in "ab" for i in range(8)])
    (root / "a" / "out.png").symlink_to(outside / "secret" / "1.png")
    (root / "a" / "folder").symlink_to(outside / "secret")
    (root / "a" / "dead.png").symlink_to(root / "nowhere")
    (root / "b" / "within.png").symlink_to(root / "b" / "3.png")
    os.mkfifo(root / "b" / "pipe.png")
    manifest = read_manifest(root, progress=False)
    reasons = {r.path: r.reason.split(";")[0] for r in manifest.rejected}
    assert reasons == {
        "a/out.png": "a link that leads out of the data set's folder",
        "a/folder": "a link that leads out of the data set's folder",
        "a/dead.png": "a link to nothing",
        "b/pipe.png": "a pipe, socket or device, not a file",
    }
    assert "b/within.png" in {r.path for r in manifest.records}
    shortcut = tmp_path / "shortcut"
    shortcut.symlink_to(root)
    assert read_manifest(shortcut, progress=False).data_hash == manifest.data_hash


def test_a_sibling_with_the_same_beginning_is_outside(tree: Tree) -> None:
    other = tree(["a/1.png"], root="set2")
    root = tree(["a/1.png", "b/2.png"])
    (root / "a" / "out.png").symlink_to(other / "a" / "1.png")
    assert "leads out" in open_store(root).listing().refused["a/out.png"]


def test_a_pipe_in_a_manifest_is_not_waited_for(tree: Tree) -> None:
    root = tree(["a/1.png"])
    os.mkfifo(root / "a" / "2.png")
    with pytest.raises(UnusableError, match="pipe"):
        open_store(root).read("a/2.png")
