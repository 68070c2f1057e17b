"""What a user does not see is no sample and no class; what is left out is told."""

from pathlib import Path

import pytest
from PIL import Image

from clients.sources.class_folders import listed
from clients.tasks.images import images
from experiments.run import run


def picture(file: Path, colour: int = 0) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (colour, colour, colour)).save(file, "png")


def test_hidden_files_and_folders_are_skipped_in_silence(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/deep/2.PNG"):
        picture(tmp_path / name)
    for name in (
        ".ipynb_checkpoints/1.png",
        "a/.ipynb_checkpoints/1.png",
        "__MACOSX/a/1.png",
        "a/._1.png",
        "@eaDir/1.png",
    ):
        picture(tmp_path / name)
    for name in ("a/Thumbs.db", "b/.DS_Store", "b/desktop.ini", ".DS_Store"):
        (tmp_path / name).write_bytes(b"x")
    found = listed(tmp_path)
    assert [(str(file.relative_to(tmp_path)), label) for file, label in found.entries] == [
        ("a/1.png", "a"),
        ("b/deep/2.PNG", "b"),
    ]
    assert found.notes == ()


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "1.png")
    picture(tmp_path / "loose.png")
    (tmp_path / "empty").mkdir()
    for name in ("x.dcm", "y.dcm", "notes.txt"):
        (tmp_path / "a" / name).write_bytes(b"x")
    empty, others, loose = listed(tmp_path).notes
    assert empty == f"{tmp_path}: empty: no pictures, so that this is no class"
    assert (
        "3 files in class folders are left out for their endings (.dcm 2, .txt 1); the first is a/notes.txt" in others
    )
    assert loose == f"{tmp_path}: 1 pictures in no class folder are left out; the first is loose.png"
    assert listed(tmp_path / "nowhere").entries == ()


def test_a_folder_without_any_picture_says_what_it_holds_instead(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "train" / "a" / "1.png")
    (tmp_path / "images" / "test" / "a").mkdir(parents=True)
    (tmp_path / "images" / "test" / "a" / "1.dcm").write_bytes(b"x")
    with pytest.raises(
        ValueError, match=r"both hold pictures in class folders; .*left out for their endings \(\.dcm 1\)"
    ):
        images(str(tmp_path))


def test_the_task_tells_it_each_time_and_its_samples_are_the_same(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for i, name in enumerate(("cat", "dog")):
            picture(tmp_path / split / name / "1.png", colour=i + 1)
    plain = images(str(tmp_path), size=4)
    (tmp_path / "train" / "__MACOSX").mkdir()
    (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "train" / "bird").mkdir()
    Image.new("RGBA", (4, 4), (9, 9, 9, 0)).save(tmp_path / "train" / "cat" / "2.png")
    for _ in range(2):  # decoded, and from the cache
        again = images(str(tmp_path), size=4)
        empty, clear = again.notes
        assert empty == f"{tmp_path}/train: bird: no pictures, so that this is no class"
        assert clear.startswith("1 of 3 pictures have transparent pixels, laid over white; the first is")
        assert again.class_names is not None and again.class_names.tolist() == ["cat", "dog"]
        assert again.outputs == 2 and again.train["y"].tolist() == [0, 0, 1]
        assert (again.train["x"][::2] == plain.train["x"]).all() and (again.train["x"][1] == 255).all()
    settings = {
        "data_dir": tmp_path,
        "task.size": 4,
        "model": "lr",
        "clients": 2,
        "rounds": 1,
        "out": tmp_path / "runs",
    }
    log = run(task="images", **settings).log
    assert log.names == {"classes": ["cat", "dog"]}
    assert log.events.loc[log.events["event"] == "samples", "note"].tolist() == [empty, clear]


def test_a_link_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.png").touch()
    (tmp_path / "a" / "x.png").symlink_to("gone.png")
    found = listed(tmp_path)
    assert [file.name for file, _ in found.entries] == ["0.png"]
    assert found.notes == (f"{tmp_path}: 1 links to pictures lead nowhere and are left out; the first is a/x.png",)
