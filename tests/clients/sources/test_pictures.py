"""Every kind of picture keeps its values, scaled by its depth, or is refused with its mode; 8 bits stay the same."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clients.sources.pictures import one_depth, stack, to_array

DEEP = np.array([[0, 12000], [40000, 65535]], np.uint16)
COLOUR = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)


def encoded(picture: Any, ending: str = "png", **options: Any) -> io.BytesIO:
    file = io.BytesIO()
    picture.save(file, ending, **options)
    file.seek(0)
    return file


def read(*pictures: Any, mode: str = "RGB", size: int | None = None, **options: Any) -> np.ndarray:
    return stack(((f"file {i}", p) for i, p in enumerate(pictures)), len(pictures), mode, size, **options)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
@pytest.mark.parametrize("target", ["L", "RGB"])
def test_eight_bits_without_transparency_are_what_pil_converts_them_to(mode: str, target: str) -> None:
    picture = Image.fromarray(COLOUR).convert(mode)
    file = encoded(picture, "tiff" if mode in ("CMYK", "YCbCr") else "png")
    ours, pils = read(file, mode=target), np.asarray(picture.convert(target))
    assert ours.dtype == np.uint8
    assert np.array_equal(ours[0], pils[None] if target == "L" else pils.transpose(2, 0, 1))


@pytest.mark.parametrize("ending", ["png", "tiff"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_sixteen_bits_keep_their_values(ending: str, mode: str) -> None:
    x = read(encoded(Image.fromarray(DEEP), ending), mode=mode)
    assert x.dtype == np.uint16 and np.array_equal(x[0], np.repeat(DEEP[None], 3 if mode == "RGB" else 1, 0))
    scaled = one_depth({"train_x": x, "test_x": x[:0], "train_y": np.zeros(1)})["train_x"]
    assert scaled.dtype == np.float32 and np.allclose(scaled[0, 0], DEEP / 65535, rtol=1e-6, atol=0)


def test_eight_and_sixteen_bits_meet_on_one_scale() -> None:
    """v / 255 = 257 v / 65535, in whichever order they come and in whichever half they are."""
    eight, sixteen = (Image.fromarray(np.full((2, 2), v, t)) for v, t in ((51, np.uint8), (13107, np.uint16)))
    for pair in ((eight, sixteen), (sixteen, eight)):
        assert (read(*map(encoded, pair)) == 13107).all()  # 51 / 255 = 13107 / 65535 = 0.2
    both = one_depth({"train_x": read(encoded(eight)), "test_x": read(encoded(sixteen))})
    assert all(np.array_equal(x, np.full((1, 3, 2, 2), np.float32(0.2))) for x in both.values())


def test_resizing_keeps_the_scale() -> None:
    flat = encoded(Image.fromarray(np.full((9, 9), 40000, np.uint16)))
    assert read(flat, size=4).shape == (1, 3, 4, 4) and (read(flat, size=4) == 40000).all()


def test_floats_keep_their_values_and_do_not_mix() -> None:
    values = np.array([[-1.5, 0.0], [0.25, 700.0]], np.float32)
    file, eight = encoded(Image.fromarray(values), "tiff"), encoded(Image.new("L", (2, 2)))
    x = read(file)
    assert x.dtype == np.float32 and np.array_equal(x[0, 1], values)
    with pytest.raises(
        ValueError, match="file 1: a picture of type float32 among pictures of type uint8; floats have no"
    ):
        read(eight, file)
    with pytest.raises(ValueError, match="pictures of train float32, test uint8: floats have no full scale"):
        one_depth({"train_x": x, "test_x": read(eight)})


def test_transparent_pixels_are_laid_over_white() -> None:
    rgba = np.dstack([COLOUR, np.full((6, 4), 255, np.uint8)])
    opaque, remarks = Image.fromarray(rgba.copy()), list[str]()
    assert np.array_equal(read(encoded(opaque), remarks=remarks)[0], COLOUR.transpose(2, 0, 1)) and not remarks
    rgba[0, 0], rgba[1, 1] = (10, 20, 30, 0), (100, 0, 200, 51)
    x = read(encoded(Image.fromarray(rgba)), encoded(opaque), remarks=remarks)[0]
    assert x[:, 0, 0].tolist() == [255, 255, 255]
    assert x[:, 1, 1].tolist() == [224, 204, 244]  # 0.2 of the colour and 0.8 of 255
    assert np.array_equal(x[:, 2:], COLOUR.transpose(2, 0, 1)[:, 2:])
    assert remarks == ["1 of 2 pictures have transparent pixels, laid over white; the first is file 0"]
    palette = Image.new("P", (2, 1))
    palette.putpalette([1, 2, 3, 200, 100, 50])
    palette.putpixel((1, 0), 1)
    assert read(encoded(palette, transparency=1))[0, :, 0].T.tolist() == [[1, 2, 3], [255, 255, 255]]


@pytest.mark.parametrize("ending", ["jpeg", "png", "webp", "tiff"])
def test_files_are_turned_as_their_exif_says(ending: str) -> None:
    exif = Image.Exif()
    exif[274] = 6  # a quarter turn to the right
    picture = Image.fromarray(np.repeat(COLOUR[:1, :1], 6, 0).repeat(4, 1))
    assert read(encoded(picture, ending, exif=exif)).shape == (1, 3, 4, 6)
    assert read(encoded(picture, ending)).shape == (1, 3, 6, 4)


@pytest.mark.parametrize("ending", ["png", "tiff", "gif", "webp"])
def test_several_frames_are_refused(ending: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    file = encoded(frames[0], ending, save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match="file 0: it has 2 frames or pages; save each as a file of its own"):
        read(file)


@pytest.mark.parametrize(
    "picture, message",
    [
        (
            Image.fromarray(np.array([[7, 9]], np.int32)),
            r"file 0: mode I: 32-bit integers \(7\.\.9\) have no known full",
        ),
        (Image.fromarray(np.array([[np.nan]], np.float32)), "file 0: mode F: it holds NaN or infinity"),
    ],
)
def test_what_has_no_scale_is_refused_with_its_mode(picture: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(encoded(picture, "tiff"))
    with pytest.raises(ValueError, match="mode LAB: cannot be converted to L"):
        to_array(Image.new("LAB", (2, 2)), "L")


def test_truncated_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(COLOUR)).getvalue()[:80])
    with pytest.raises(ValueError, match=r"a\.png: cannot be decoded as a picture"):
        stack([(str(tmp_path / "a.png"), tmp_path / "a.png")], 1, "RGB")


def huge(side: int) -> io.BytesIO:
    """A PNG of 80 bytes that says that it has side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b""))


def test_a_picture_bomb_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of any type are: a plug-in of PIL may raise MemoryError, struct.error or KeyError for a damaged header."""
    with pytest.raises(ValueError, match="file 0: cannot be decoded as a picture .*10000000000 pixels"):
        read(huge(100_000))
    for error in (MemoryError(), struct.error("short"), KeyError("tag")):

        def opened(*_: Any, error: Exception = error) -> Any:
            raise error

        monkeypatch.setattr(Image, "open", opened)
        with pytest.raises(ValueError, match="file 0: cannot be decoded as a picture"):
            read(huge(8))


def test_pictures_that_do_not_fit_into_memory_are_refused() -> None:
    with pytest.raises(ValueError, match=r"file 0: \d+ pictures of its size \(3, 4, 4\) need .* GB"):
        stack([("file 0", encoded(Image.new("RGB", (4, 4))))], 2**55, "RGB")


def test_a_picture_of_a_dataset_keeps_its_channels() -> None:
    shapes = {mode: to_array(Image.new(mode, (4, 6))).shape for mode in ("L", "I;16", "F", "RGB", "P", "1", "CMYK")}
    assert shapes == {**dict.fromkeys(shapes, (3, 6, 4)), **dict.fromkeys(("L", "I;16", "F"), (1, 6, 4))}
