//! Reading a picture file into upright 8-bit RGB on white.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use super::{Error, Size};

/// The most bytes a picture file may have.
pub const MAX_FILE_BYTES: u64 = 256 << 20;

/// The most pixels a picture may have; more are refused by its header, before anything is allocated for them. Fuzzing would
/// spend its time on zeroing them.
pub const MAX_PIXELS: u64 = if cfg!(fuzzing) { 1 << 18 } else { 100_000_000 };

/// The longest side a picture may have: resizing a line of a million pixels would take gigabytes of weights.
pub const MAX_SIDE: u32 = 65_535;

/// The most a decoder may allocate: [`MAX_PIXELS`] of four 8-bit channels, and some room.
const MAX_ALLOCATION: u64 = if cfg!(fuzzing) { 4 << 20 } else { 512 << 20 };

/// A picture: 8-bit RGB, upright, without transparency.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    pub(super) size: Size,
    /// `[height, width, 3]`.
    pub(super) pixels: Vec<u8>,
    hash: PictureHash,
}

/// What a picture shows, as a number: two pictures that have the same are the same, wherever they come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PictureHash(pub u128);

impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Picture({} × {})", self.size.width, self.size.height)
    }
}

impl Picture {
    /// Decodes the bytes of a PNG, JPEG, WebP, GIF or BMP file; of an animation the first frame. The orientation
    /// of the camera (EXIF) is applied, transparency is composed on white, and gray, palette and 16-bit pictures
    /// become 8-bit RGB.
    ///
    /// # Errors
    /// [`Error::Format`] where the first bytes are of no such file, [`Error::Broken`], [`Error::Pixels`],
    /// [`Error::Side`], [`Error::Bytes`].
    pub fn decode(bytes: &[u8]) -> Result<Picture, Error> {
        let length = bytes.len() as u64;
        if length > MAX_FILE_BYTES {
            return Err(Error::Bytes { bytes: length, limit: MAX_FILE_BYTES });
        }
        let format = match image::guess_format(bytes) {
            Ok(
                format @ (ImageFormat::Png
                | ImageFormat::Jpeg
                | ImageFormat::WebP
                | ImageFormat::Gif
                | ImageFormat::Bmp),
            ) => format,
            _ => return Err(unreadable(bytes)),
        };
        let broken = |error: ImageError| Error::Broken {
            format: format!("{format:?}").to_uppercase(),
            reason: error.to_string(),
        };
        let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
        let mut limits = Limits::default();
        limits.max_alloc = Some(MAX_ALLOCATION);
        reader.limits(limits);
        let mut decoder = reader.into_decoder().map_err(broken)?;
        let (width, height) = decoder.dimensions();
        if u64::from(width) * u64::from(height) > MAX_PIXELS {
            return Err(Error::Pixels { width, height, limit: MAX_PIXELS });
        }
        if width > MAX_SIDE || height > MAX_SIDE {
            return Err(Error::Side { width, height });
        }
        let orientation = decoder.orientation().map_err(broken)?;
        let mut decoded = DynamicImage::from_decoder(decoder).map_err(broken)?;
        decoded.apply_orientation(orientation);
        let size = Size { width: decoded.width(), height: decoded.height() };
        if size.width == 0 || size.height == 0 {
            return Err(Error::Broken {
                format: format!("{format:?}").to_uppercase(),
                reason: "it has no pixels".into(),
            });
        }
        let pixels = if decoded.color().has_alpha() {
            on_white(decoded.into_rgba8().into_raw())
        } else {
            decoded.into_rgb8().into_raw()
        };
        Ok(Picture::new(size, pixels))
    }

    fn new(size: Size, pixels: Vec<u8>) -> Picture {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&size.width.to_le_bytes());
        hasher.update(&size.height.to_le_bytes());
        hasher.update(&pixels);
        let mut first = [0; 16];
        hasher.finalize_xof().fill(&mut first);
        Picture { size, pixels, hash: PictureHash(u128::from_le_bytes(first)) }
    }

    /// A picture from rows of RGB bytes, `[height, width, 3]`; `None` if their number is wrong or there are none.
    pub fn from_rgb(width: u32, height: u32, pixels: Vec<u8>) -> Option<Picture> {
        let expected = usize::try_from(u64::from(width) * u64::from(height)).ok()?.checked_mul(3)?;
        (expected > 0 && pixels.len() == expected).then(|| Picture::new(Size { width, height }, pixels))
    }

    /// The hash of size and pixels.
    pub fn hash(&self) -> PictureHash {
        self.hash
    }

    /// Pixels.
    pub fn width(&self) -> u32 {
        self.size.width
    }

    /// Pixels.
    pub fn height(&self) -> u32 {
        self.size.height
    }

    /// The bytes, `[height, width, 3]`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }
}

/// `c · a + 255 · (255 - a)` over 255, rounded: what Pillow's `alpha_composite` gives on opaque white. In place.
fn on_white(mut rgba: Vec<u8>) -> Vec<u8> {
    let count = rgba.len() / 4;
    for i in 0..count {
        let alpha = u32::from(rgba[4 * i + 3]);
        for channel in 0..3 {
            let value = u32::from(rgba[4 * i + channel]);
            rgba[3 * i + channel] = ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8;
        }
    }
    rgba.truncate(count * 3);
    rgba
}

/// [`Error::Format::looks_like`] of bytes that say nothing.
pub const UNKNOWN: &str = "something else";

/// What other programs make JPEG or PNG files of: an offset, the bytes that stand there, and what they are.
const CONVERTIBLE: &[(usize, &[u8], &str)] = &[
    (0, b"%PDF", "a PDF document"),
    (0, b"%!PS", "a PostScript document"),
    (4, b"ftyphe", "a HEIC photo"),
    (4, b"ftypmif1", "a HEIC photo"),
    (4, b"ftypmsf1", "a HEIC photo"),
    (4, b"ftypavif", "an AVIF picture"),
    (4, b"ftypavis", "an AVIF picture"),
    (4, b"ftypcrx ", "a raw photo"),
    (4, b"ftyp", "an MP4 or QuickTime video"),
    (0, b"II*\0\x10\0\0\0CR", "a raw photo"),
    (0, b"II*\0", "a TIFF picture"),
    (0, b"MM\0*", "a TIFF picture"),
    (0, b"II+\0", "a TIFF picture"),
    (0, b"MM\0+", "a TIFF picture"),
    (0, b"IIRO", "a raw photo"),
    (0, b"IIRS", "a raw photo"),
    (0, b"MMOR", "a raw photo"),
    (0, b"IIU\0", "a raw photo"),
    (0, b"FUJIFILM", "a raw photo"),
    (0, b"\0MRM", "a raw photo"),
    (0, b"FOVb", "a raw photo"),
    (0, b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
    (0, b"\0\0\x01\0", "an icon"),
    (0, b"icns", "an icon"),
    (0, b"\xff\x0a", "a JPEG XL picture"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (0, b"\xffO\xffQ", "a JPEG 2000 picture"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"gimp xcf", "a GIMP picture"),
    (0, b"qoif", "a QOI picture"),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR picture"),
    (0, b"#?RADIANCE", "a Radiance picture"),
    (0, b"DDS ", "a DirectDraw surface"),
];

/// What is nothing to look at.
const OTHERS: &[(usize, &[u8], &str)] = &[
    (0, b"PK\x03\x04", "a ZIP archive, a bundle or an office document"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\x7fELF", "a program"),
    (0, b"<?xml", "an XML document"),
    (0, b"<!DOCTYPE html", "a web page"),
    (0, b"<html", "a web page"),
];

/// What the first bytes of a file that cannot be read say.
fn unreadable(bytes: &[u8]) -> Error {
    let is_there =
        |&&(at, signature, _): &&(usize, &[u8], &str)| bytes.get(at..).is_some_and(|rest| rest.starts_with(signature));
    let head = &bytes[..bytes.len().min(1024)];
    // A drawing may begin with a declaration and with comments.
    let is_drawing = head.windows(5).any(|tag| tag == b"<svg " || tag == b"<svg>" || tag == b"<svg\n");
    if let Some(&(.., looks_like)) = CONVERTIBLE.iter().find(is_there) {
        return Error::Format { looks_like, converts: true };
    }
    if is_drawing && head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start().starts_with(b"<") {
        return Error::Format { looks_like: "an SVG drawing", converts: true };
    }
    let looks_like = match OTHERS.iter().find(is_there) {
        Some(&(.., what)) => what,
        None if bytes.is_empty() => "an empty file",
        None if is_text(head) => "text",
        None => UNKNOWN,
    };
    Error::Format { looks_like, converts: false }
}

fn is_text(head: &[u8]) -> bool {
    let text = match std::str::from_utf8(head) {
        Ok(text) => Some(text),
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&head[..error.valid_up_to()]).ok(),
        Err(_) => None,
    };
    text.is_some_and(|text| !text.chars().any(|c| c.is_control() && !c.is_whitespace()))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use expect_test::{Expect, expect};
    use image::{DynamicImage, GrayImage, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};

    use super::*;

    fn encode(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Vec::new();
        picture.into().write_to(&mut Cursor::new(&mut bytes), format).unwrap();
        bytes
    }

    #[track_caller]
    fn check_error(bytes: &[u8], expected: Expect) {
        expected.assert_eq(&Picture::decode(bytes).unwrap_err().to_string());
    }

    #[test]
    fn every_format_gives_the_same_pixels() {
        let source = RgbImage::from_fn(3, 2, |x, y| Rgb([x as u8 * 80, y as u8 * 200, 7]));
        for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::WebP, ImageFormat::Gif] {
            let picture = Picture::decode(&encode(source.clone(), format)).unwrap();
            assert_eq!((picture.width(), picture.height()), (3, 2), "{format:?}");
            assert_eq!(picture.pixels(), source.as_raw(), "{format:?}");
        }
        let flat = RgbImage::from_pixel(16, 16, Rgb([200, 10, 90]));
        let jpeg = Picture::decode(&encode(flat, ImageFormat::Jpeg)).unwrap();
        assert!(jpeg.pixels().chunks(3).all(|p| p[0].abs_diff(200) < 4 && p[1].abs_diff(10) < 4), "{jpeg:?}");
    }

    #[test]
    fn transparency_is_on_white_and_gray_becomes_rgb() {
        let source = RgbaImage::from_fn(4, 1, |x, _| Rgba([0, 100, 255, [0, 255, 128, 1][x as usize]]));
        let picture = Picture::decode(&encode(source, ImageFormat::Png)).unwrap();
        assert_eq!(picture.pixels(), [255, 255, 255, 0, 100, 255, 127, 177, 255, 254, 254, 255]);

        let gray = GrayImage::from_fn(2, 1, |x, _| image::Luma([x as u8 * 9]));
        let picture = Picture::decode(&encode(gray, ImageFormat::Png)).unwrap();
        assert_eq!(picture.pixels(), [0, 0, 0, 9, 9, 9]);

        let deep = image::ImageBuffer::from_fn(2, 1, |x, _| Rgb([x as u16 * 0xffff, 0x8080, 0]));
        let picture = Picture::decode(&encode(DynamicImage::ImageRgb16(deep), ImageFormat::Png)).unwrap();
        assert_eq!(picture.pixels(), [0, 128, 0, 255, 128, 0]);
    }

    #[test]
    fn orientation_is_applied() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../demo/images/07-exif-rotated-180x110.jpg");
        let picture = Picture::decode(&std::fs::read(path).unwrap()).unwrap();
        assert_eq!((picture.width(), picture.height()), (180, 110));
    }

    #[test]
    fn what_is_no_picture_is_named() {
        check_error(
            b"%PDF-1.7",
            expect![
                "this is no picture that can be read, it looks like a PDF document; PNG, JPEG, WebP, GIF and BMP can be read"
            ],
        );
        check_error(
            "Grüße\n".as_bytes(),
            expect![
                "this is no picture that can be read, it looks like text; PNG, JPEG, WebP, GIF and BMP can be read"
            ],
        );
        check_error(
            b"",
            expect![
                "this is no picture that can be read, it looks like an empty file; PNG, JPEG, WebP, GIF and BMP can be read"
            ],
        );
        check_error(
            b"\0\0\0\x18ftypheic\0\0",
            expect![
                "this is no picture that can be read, it looks like a HEIC photo; PNG, JPEG, WebP, GIF and BMP can be read"
            ],
        );
        for (bytes, what, can_convert) in [
            (&b"MM\0*\0\0\0\x08"[..], "a TIFF picture", true),
            (b"\0\0\0\x1cftypavif", "an AVIF picture", true),
            (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- x -->\n<svg xmlns=''/>", "an SVG drawing", true),
            (b"<?xml version='1.0'?><a/>", "an XML document", false),
            (b"How to draw <svg >", "text", false),
            (b"II*\0\x10\0\0\0CR\x02\0", "a raw photo", true),
            (b"\x01\x02\x03", UNKNOWN, false),
        ] {
            let Error::Format { looks_like, converts } = Picture::decode(bytes).unwrap_err() else { panic!("{what}") };
            assert_eq!((looks_like, converts), (what, can_convert));
        }
    }

    #[test]
    fn broken_pictures_are_errors_at_every_length() {
        let whole = encode(RgbImage::from_pixel(9, 9, Rgb([1, 2, 3])), ImageFormat::Png);
        for length in 8..whole.len() - 12 {
            let error = Picture::decode(&whole[..length]).unwrap_err();
            assert!(matches!(error, Error::Broken { .. }), "{length}: {error}");
        }
    }

    #[test]
    fn lying_sizes_are_refused_before_decoding() {
        // A BMP header of 60000 × 60000 pixels and no data.
        let mut bytes = encode(RgbImage::from_pixel(2, 2, Rgb([1, 2, 3])), ImageFormat::Bmp);
        bytes[18..22].copy_from_slice(&60_000i32.to_le_bytes());
        bytes[22..26].copy_from_slice(&60_000i32.to_le_bytes());
        let error = Picture::decode(&bytes).unwrap_err();
        assert!(matches!(error, Error::Pixels { width: 60_000, .. } | Error::Broken { .. }), "{error}");
        // A line compresses to next to nothing, and has few pixels.
        let line = encode(GrayImage::new(MAX_SIDE + 1, 1), ImageFormat::Png);
        let error = Picture::decode(&line).unwrap_err();
        assert!(matches!(error, Error::Side { width: 65_536, height: 1 }), "{error}");
        assert!(Picture::decode(&encode(GrayImage::new(1, MAX_SIDE), ImageFormat::Png)).is_ok());
    }
}
