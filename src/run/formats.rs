//! Extensions of picture files: those that are read, and those that are only recognized, to say what they are.

/// What a name's extension says of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// It is read, whatever its contents turn out to be.
    Readable,
    /// A picture that is not read.
    Picture(&'static str),
    /// Something else that a person may want described; its name alone does not say so.
    Other(&'static str),
}

const READABLE: &[&str] = &["png", "apng", "jpg", "jpeg", "jpe", "jfif", "pjpeg", "pjp", "webp", "gif", "bmp", "dib"];

const PICTURES: &[(&str, &[&str])] = &[
    ("a HEIC photo", &["heic", "heif", "heics", "heifs", "hif"]),
    ("an AVIF picture", &["avif", "avifs"]),
    ("a TIFF picture", &["tif", "tiff"]),
    ("an SVG drawing", &["svg", "svgz"]),
    ("a JPEG XL picture", &["jxl"]),
    ("a JPEG 2000 picture", &["jp2", "j2k", "jpf", "jpx"]),
    (
        "a raw photo",
        &[
            "3fr", "arw", "cr2", "cr3", "crw", "dng", "erf", "kdc", "mrw", "nef", "nrw", "orf", "pef", "raf", "raw",
            "rw2", "sr2", "srf", "srw", "x3f",
        ],
    ),
    ("an icon", &["ico", "icns"]),
    ("a Photoshop document", &["psd"]),
    ("a GIMP picture", &["xcf"]),
    ("a Targa picture", &["tga"]),
    ("a Netpbm picture", &["pbm", "pgm", "pnm", "ppm"]),
    ("a QOI picture", &["qoi"]),
    ("an OpenEXR picture", &["exr"]),
];

const OTHERS: &[(&str, &[&str])] = &[
    ("a PDF document", &["pdf"]),
    ("a PostScript document", &["eps", "ps"]),
    ("a video", &["avi", "m4v", "mkv", "mov", "mp4", "webm"]),
];

/// What an extension, without its dot and in any case, says; `None` for those of other files.
pub fn of_extension(extension: &str) -> Option<Format> {
    let extension = extension.to_ascii_lowercase();
    let is_listed = |list: &[&str]| list.contains(&extension.as_str());
    if is_listed(READABLE) {
        return Some(Format::Readable);
    }
    let find =
        |table: &[(&'static str, &[&str])]| table.iter().find(|(_, list)| is_listed(list)).map(|(name, _)| *name);
    find(PICTURES).map(Format::Picture).or_else(|| find(OTHERS).map(Format::Other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions() {
        for (extension, expected) in [
            ("JPG", Some(Format::Readable)),
            ("jfif", Some(Format::Readable)),
            ("HeIc", Some(Format::Picture("a HEIC photo"))),
            ("CR3", Some(Format::Picture("a raw photo"))),
            ("pdf", Some(Format::Other("a PDF document"))),
            ("rs", None),
            ("", None),
        ] {
            assert_eq!(of_extension(extension), expected, "{extension}");
        }
    }
}
