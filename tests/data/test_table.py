import sys
from pathlib import Path

import pytest
from data_trees import Tree

from expressivegan.data import read_manifest, tables
from expressivegan.errors import DataError, InputError

pytestmark = pytest.mark.filterwarnings("ignore:.*EVERY IMAGE COUNTS AS A PATIENT")
PATHS = [f"images/{i}.png" for i in range(12)]


def rows(extra: str = "") -> str:
    lines = [f"images/{i}.png,{'NORMAL' if i % 2 else 'Mass'},p{i // 2},{i}" for i in range(12)]
    return "\n".join(["path,label,patient,age", *lines]) + "\n" + extra


def test_a_table_tells_everything(tree: Tree) -> None:
    root = tree(PATHS)
    splits = ["train"] * 6 + ["VALID"] * 2 + ["Testing"] * 4
    text = "Image,Finding,Subject,Split,Gender,Age\n" + "".join(
        f"images/{i}.png,{'NORMAL' if i % 2 else 'Mass'},p{i // 2},{splits[i]},{'female' if i < 6 else 'M'},0{i}0Y\n"
        for i in range(12)
    )
    (root / "index.csv").write_text(text)
    for source in (root, root / "index.csv"):
        manifest = read_manifest(source, progress=False)
        assert (manifest.source, manifest.classes, manifest.patients_known) == ("table", ("NORMAL", "Mass"), True)
        assert manifest.root == root.resolve()
        one = {r.path: r for r in manifest.records}
        assert len(one) == 12
        assert manifest.rejected == ()
        six = one["images/6.png"]
        assert (six.label, six.patient, six.official, six.sex, six.age) == ("Mass", "p3", "val", "M", 60.0)
        assert (one["images/3.png"].sex, one["images/3.png"].label) == ("F", "NORMAL")
        assert {r.official for r in manifest.records if r.group == "test"} == {"test"}


def test_paths_are_relative_to_the_tables_folder(tree: Tree) -> None:
    root = tree([f"above/{p}" for p in PATHS])
    (root / "above" / "index.csv").write_text(rows())
    for source in (root, root / "above", root / "above" / "index.csv"):
        assert len(read_manifest(source, progress=False).records) == 12


def test_a_table_given_by_name_says_nothing_of_other_files(tree: Tree) -> None:
    root = tree([*PATHS, "other/1.png", "images/unnamed.png"])
    (root / "index.csv").write_text(rows())
    assert read_manifest(root / "index.csv", progress=False).rejected == ()
    assert {r.path: r.reason for r in read_manifest(root, progress=False).rejected} == dict.fromkeys(
        ("other/1.png", "images/unnamed.png"), "index.csv does not name it"
    )


def test_every_odd_row_is_named(tree: Tree) -> None:
    root = tree([*PATHS, "images/a.png", "images/b.png", "images/c.png", "images/d.png"])
    (root / "index.csv").write_text(
        "path,label,patient,split\n"
        + "".join(f"images/{i}.png,{'NORMAL' if i % 2 else 'Mass'},p{i // 2},train\n" for i in range(12))
        + "images/3.png,NORMAL,p1,train\n"  # line 14: once more
        + "images/a.png,NORMAL,x,train\n./images/a.png,Mass,x,train\n"  # 15, 16: two labels
        + "images/b.png,,x,train\n"
        + "images/c.png,Mass,x,someday\n"
        + "images/d.png,Mass,,train\n"
        + "gone.png,Mass,x,train\n"
        + "/etc/passwd,Mass,x,train\n../set/images/0.png,Mass,x,train\nC:\\x.png,Mass,x,train\n"
        + ",Mass,x,train\n"
    )
    manifest = read_manifest(root / "index.csv", progress=False)
    assert {r.path: r.reason for r in manifest.rejected} == {
        "index.csv, line 14": "repeats line 5 (images/3.png), which is used once",
        "images/a.png": "lines 15 and 16 of index.csv give it the label 'NORMAL' and 'Mass'",
        "images/b.png": "line 17 of index.csv gives it no label",
        "images/c.png": "line 18 of index.csv gives it the unknown split 'someday'; known are train, val and test",
        "images/d.png": "line 19 of index.csv gives it no patient",
        "gone.png": "line 20 of index.csv names it, but there is no such file",
        "/etc/passwd": "line 21 of index.csv leads out of the folder",
        "../set/images/0.png": "line 22 of index.csv leads out of the folder",
        "C:\\x.png": "line 23 of index.csv leads out of the folder",
        "index.csv, line 24": "names no file",
    }
    assert len(manifest.records) == 12


def test_a_link_that_a_table_names_is_not_followed(tree: Tree) -> None:
    outside = tree(["secret.png"], root="elsewhere")
    root = tree(PATHS)
    (root / "images" / "out.png").symlink_to(outside / "secret.png")
    (root / "index.csv").write_text(rows("images/out.png,Mass,x,1\n"))
    for source in (root, root / "index.csv"):
        rejected = read_manifest(source, progress=False).rejected
        assert [(r.path, r.reason.split(";")[0]) for r in rejected] == [
            ("images/out.png", "a link that leads out of the data set's folder")
        ]


def test_a_table_that_is_a_link_out_of_the_folder_is_not_read(tree: Tree, tmp_path: Path) -> None:
    root = tree(PATHS)
    (tmp_path / "Data_Entry_2017.csv").write_text("secret\n")
    (root / "Data_Entry_2017.csv").symlink_to(tmp_path / "Data_Entry_2017.csv")
    with pytest.raises(DataError, match=r"unusable: a link that leads out"):
        read_manifest(root, progress=False)


def test_several_findings(tree: Tree) -> None:
    root = tree(PATHS)
    text = "path,label\n" + "".join(f"images/{i}.png,{('normal', 'Mass; Edema', 'Edema')[i % 3]}\n" for i in range(12))
    (root / "index.csv").write_text(text)
    with pytest.raises(
        InputError, match=r"there are Edema \(8\), Mass \(4\), normal \(4\); try classes='normal,Edema'"
    ):
        read_manifest(root, progress=False)
    manifest = read_manifest(root, classes="NORMAL,EDEMA", progress=False)
    assert manifest.counts()["train"].keys() == {"NORMAL", "EDEMA"}
    assert (len(manifest.records), manifest.reference_class) == (12, "NORMAL")


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_what_spreadsheets_write(tree: Tree, delimiter: str) -> None:
    root = tree(["bilder/größe 1.png", "bilder/größe 2.png", "bilder/größe 3.png", "bilder/größe 4.png"])
    lines = [f"bilder\\größe {i}.png,{'ab'[i % 2]},007{i}" for i in range(1, 5)]
    text = "\r\n".join(["Path,Label,Patient ID", *lines]).replace(",", delimiter)
    (root / "index.csv").write_bytes(text.encode("cp1252"))
    manifest = read_manifest(root / "index.csv", fractions=(1, 0, 0), progress=False)
    assert {r.patient for r in manifest.records} == {"0071", "0072", "0073", "0074"}
    (root / "index.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert len(read_manifest(root / "index.csv", fractions=(1, 0, 0), progress=False).records) == 4


def test_which_table(tree: Tree) -> None:
    root = tree(PATHS)
    (root / "index.csv").write_text(rows())
    (root / "notes.csv").write_text("who,when\nme,now\n")
    assert len(read_manifest(root, progress=False).records) == 12
    (root / "index2.csv").write_text(rows())
    with pytest.raises(DataError, match=r"several tables of images \(index.csv, index2.csv\); give one of them"):
        read_manifest(root, progress=False)
    with pytest.raises(DataError, match=r"notes.csv has no column path and no column label \(its columns: who, when\)"):
        read_manifest(root / "notes.csv", progress=False)


def test_class_folders_count_where_the_table_speaks_of_other_files(tree: Tree) -> None:
    root = tree([f"{c}/{i}.png" for c in "ab" for i in range(6)])
    (root / "index.csv").write_text("path,label\nelsewhere.png,a\n")
    manifest = read_manifest(root, progress=False)
    assert manifest.source == "folder"
    with pytest.raises(DataError, match="names no image that can be used"):
        read_manifest(root / "index.csv", progress=False)


def test_patient_regex_goes_before_the_column(tree: Tree) -> None:
    root = tree(PATHS)
    (root / "index.csv").write_text(rows())
    manifest = read_manifest(root, patient_regex=r"(\d)", progress=False)
    assert {r.patient for r in manifest.records} == {str(i) for i in range(10)}


@pytest.mark.parametrize("content", [b"", b"\0" * 5000, b'path,label\n"' + b"x" * 300_000, bytes(range(256)) * 30])
def test_rubbish_is_no_table(tree: Tree, content: bytes) -> None:
    root = tree(PATHS)
    (root / "index.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"index.csv|holds no files"):
        read_manifest(root / "index.csv", progress=False)


def test_parquet(tree: Tree) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    root = tree(PATHS)
    (root / "index.csv").write_text(rows())
    from_csv = read_manifest(root, progress=False)
    (root / "index.csv").unlink()
    columns = {
        "path": PATHS,
        "label": ["NORMAL" if i % 2 else "Mass" for i in range(12)],
        "patient": [f"p{i // 2}" for i in range(12)],
        "age": list(range(12)),
    }
    parquet.write_table(pyarrow.table(columns), root / "index.parquet")
    for source in (root, root / "index.parquet"):
        assert read_manifest(source, progress=False).records == from_csv.records
    (root / "index.parquet").write_bytes(b"PAR1" + b"\0" * 300 + b"PAR1")
    with pytest.raises(DataError, match=r"no readable Parquet table"):
        read_manifest(root / "index.parquet", progress=False)


def test_parquet_without_its_reader(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    root = tree(PATHS)
    (root / "index.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"needs pyarrow to be read; pip install 'expressivegan\[parquet\]'"):
        read_manifest(root / "index.parquet", progress=False)


def test_a_table_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_ROWS", 3)
    assert len(tables.parse(b"path\n1\n2\n\n3\n", "t.csv").rows) == 3
    with pytest.raises(DataError, match="more than 3 rows"):
        tables.parse(b"path\n1\n2\n3\n4\n", "t.csv")
