"""From pictures to arrays: one rule for files of a folder, rows of a parquet file, and samples of a Dataset.

======================= ================================================================================================
a picture of            becomes
======================= ================================================================================================
8 bits a channel, 1 bit uint8 (CMYK, YCbCr and palettes are converted to RGB by PIL; colour profiles are not applied)
16 bits, grey           uint16, the value unchanged: full scale is 65535, also where a camera uses only 12 bits of them
16 bits, colour         uint8, the upper 8 bits (PIL)
32-bit floats, grey     float32, the values unchanged; NaN and infinity are refused
32-bit integers         refused: their full scale is not known
transparent pixels      laid over white, as most viewers show them; where no pixel is transparent, alpha is dropped
======================= ================================================================================================

Files are turned as their EXIF orientation says; those with several frames or pages are refused.

Legend: N pictures, C channels, H height, W width.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
"""Endings of the names of picture files."""
_ORIENTED = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}
"""Keys of PIL's ``info`` that may hold an orientation; to look them up is much faster than to parse all of EXIF."""


def stack(
    encoded: Iterable[tuple[str, Any]], n: int, mode: str, size: int | None = None, remarks: list[str] | None = None
) -> np.ndarray:
    """Decode files of pictures to x (N, C, H, W): uint8, uint16 if one of them has 16 bits, or float32.

    Parameters
    ----------
    encoded : Iterable of (str, file or path)
        The pictures; the text says in errors where a picture comes from.
    n : int
        N, the number of pictures.
    mode : str
        PIL's mode: L (C = 1, grey) or RGB (C = 3; grey pictures have three equal channels).
    size : int (default: pictures are not resized, and must have the same size)
        Height and width, in pixels, to which pictures are resized.
    remarks : list of str, optional
        Gets a sentence on what was decided about the pictures, where there is anything to tell.

    Raises
    ------
    ValueError
        That names the picture, if it cannot be decoded, has another size than the first one, or holds floats among
        integers.
    """
    out, clear = np.empty((n, 0, 0, 0), np.uint8), []
    for i, (where, file) in enumerate(encoded):
        pixels, is_clear = _decoded(where, file, mode, size)
        clear += [where] * is_clear
        if i == 0:
            out = _room(where, n, pixels)
        if pixels.shape != out.shape[1:]:
            shapes = f"a picture of shape {pixels.shape} among pictures of shape {out.shape[1:]}"
            raise ValueError(f"{where}: {shapes}; they must be equal")
        if out.dtype != pixels.dtype and np.float32 in (out.dtype, pixels.dtype):
            mixed = f"a picture of type {pixels.dtype} among pictures of type {out.dtype}"
            raise ValueError(f"{where}: {mixed}; floats have no full scale, so that they cannot be mixed with integers")
        if out.dtype == np.uint8 and pixels.dtype == np.uint16:
            out = deeper(out)
        out[i] = deeper(pixels) if out.dtype == np.uint16 else pixels
    if clear and remarks is not None:
        remarks.append(
            f"{len(clear)} of {n} pictures have transparent pixels, laid over white; the first is {clear[0]}"
        )
    return out


def _room(where: str, n: int, first: np.ndarray) -> np.ndarray:
    """An array for ``n`` pictures like the first one. Raises ValueError where memory is too small for it."""
    try:
        return np.empty((n, *first.shape), first.dtype)
    except MemoryError as error:
        total = f"{n} pictures of its size {first.shape} need {n * first.nbytes / 1e9:.1f} GB"
        raise ValueError(f"{where}: {total}, more than this machine has; make them smaller") from error


def _decoded(where: str, file: Any, mode: str, size: int | None) -> tuple[np.ndarray, bool]:
    """The pixels (C, H, W) of one file, and whether some are transparent. Raises ValueError that names the file."""
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as opened:
            frames = getattr(opened, "n_frames", 1)
            if frames > 1 and opened.format != "MPO":  # a phone's picture, whose second frame is a preview
                raise ValueError(f"it has {frames} frames or pages; save each as a file of its own")
            opened.load()
            turned = ImageOps.exif_transpose(opened) if _ORIENTED & opened.info.keys() else opened
            return to_array(turned, mode, size), is_transparent(turned)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    except Exception as error:  # a damaged or hostile file: PIL's plug-ins raise errors of many types, MemoryError too
        raise ValueError(f"{where}: cannot be decoded as a picture ({error or type(error).__name__})") from error


def to_array(picture: Any, mode: str | None = None, size: int | None = None) -> np.ndarray:
    """The pixels (C, H, W) of a PIL picture, by the rule at the top of this file.

    Parameters
    ----------
    picture : PIL.Image.Image
        Any picture.
    mode : "L", "RGB" or None
        Grey (C = 1) or colour (C = 3); None: grey pictures of L, I;16 and F stay grey, all others become RGB.
    size : int, optional
        Height and width, in pixels, to which it is resized (bilinear, with antialiasing).

    Raises
    ------
    ValueError
        If it has 32-bit integers, NaN, or a mode that PIL cannot convert.
    """
    from PIL import Image

    deep = picture.mode.startswith("I;16") or picture.mode in ("I", "F")
    if deep:
        values = _deep_values(picture)
        if size is not None and picture.size != (size, size):
            whole = Image.fromarray(values.astype(np.float32)).resize((size, size), Image.Resampling.BILINEAR)
            exact = np.asarray(whole)
            values = exact if values.dtype == np.float32 else np.rint(exact).clip(0, 65535).astype(np.uint16)
        return np.repeat(values[None], 3 if mode == "RGB" else 1, axis=0)
    flat = _flat(picture, mode or ("L" if picture.mode == "L" else "RGB"))
    if size is not None and flat.size != (size, size):
        flat = flat.resize((size, size), Image.Resampling.BILINEAR)
    return channels_first(np.asarray(flat))


def _deep_values(picture: Any) -> np.ndarray:
    """(H, W) uint16 or float32: the values of a grey picture with more than 8 bits."""
    values = np.asarray(picture)
    if picture.mode == "I" and picture.format not in ("PNG", "PPM"):  # these have at most 16 bits in any mode
        low, high = values.min(), values.max()
        cure = "save it with 16 bits (mode I;16), or pass an array to from_arrays, scaled as it should be"
        raise ValueError(f"mode I: 32-bit integers ({low}..{high}) have no known full scale; {cure}")
    if picture.mode == "F":
        if not np.isfinite(values).all():
            raise ValueError("mode F: it holds NaN or infinity; replace them first")
        return values.astype(np.float32)
    values = values.astype(np.uint16)
    clear = picture.info.get("transparency")
    return values if clear is None else np.where(values == clear, np.uint16(65535), values)


def _flat(picture: Any, mode: str) -> Any:
    """A picture of 8 bits in ``mode``, its transparent pixels laid over white."""
    from PIL import Image

    try:
        if is_transparent(picture):
            over = Image.new("RGBA", picture.size, "white")
            return Image.alpha_composite(over, picture.convert("RGBA")).convert(mode)
        done = picture.convert(mode)
    except ValueError as error:
        raise ValueError(f"mode {picture.mode}: cannot be converted to {mode} ({error}); save it as RGB") from error
    return done


def is_transparent(picture: Any) -> bool:
    """Whether a PIL picture of 8 bits has pixels that are not opaque."""
    if picture.mode not in ("LA", "La", "PA", "RGBA", "RGBa") and "transparency" not in picture.info:
        return False
    deep = picture.mode.startswith("I") or picture.mode == "F"
    return not deep and picture.convert("RGBA").getchannel("A").getextrema()[0] < 255


def channels_first(pixels: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, C) -> (C, H, W)."""
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def deeper(pixels: np.ndarray) -> np.ndarray:
    """uint8 as uint16: v / 255 = 257 v / 65535. Others are returned as they are."""
    return pixels.astype(np.uint16) * np.uint16(257) if pixels.dtype == np.uint8 else pixels


def one_depth(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """``train_x`` and ``test_x`` in one form: uint8; or float32, where pictures of 16 bits become values of [0, 1].

    Other arrays stay as they are. Raises ValueError where one half holds floats and the other integers.
    """
    halves = {name: pixels for name, pixels in arrays.items() if name in ("train_x", "test_x") and len(pixels)}
    kinds = {pixels.dtype for pixels in halves.values()}
    if len(kinds) > 1 and np.dtype(np.float32) in kinds:
        held = ", ".join(f"{name[:-2]} {pixels.dtype}" for name, pixels in halves.items())
        raise ValueError(f"pictures of {held}: floats have no full scale; give both halves pictures of one type")
    if np.dtype(np.uint16) not in kinds:
        return arrays
    return {**arrays, **{name: scaled(pixels) for name, pixels in halves.items()}}


def scaled(pixels: np.ndarray) -> np.ndarray:
    """uint8 or uint16 as float32 in [0, 1]."""
    return deeper(pixels).astype(np.float32) / np.float32(65535)
