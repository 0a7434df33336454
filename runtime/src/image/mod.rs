//! From a picture file to what a vision tower reads, and to where its rows go between the embeddings.
//!
//! ```text
//! bytes ─ Picture::decode ─▶ 8-bit RGB, upright ─ Prepared::new ─▶ tiles f32 [3, height · width], one at a time
//!                                                      └─ layout ─▶ one Blend per image token
//! ```
//!
//! Everything follows `dwindle_bundle::ImageInput`; nothing here knows a model.

mod anyres;
mod layout;
mod load;
mod resize;
mod tiles;

pub use layout::Blend;
pub use load::{MAX_FILE_BYTES, MAX_PIXELS, MAX_SIDE, Picture, PictureHash, UNKNOWN};
pub use tiles::{Outline, Prepared, Tiles};

/// Width and height in pixels, or columns and rows of features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub width: u32,
    pub height: u32,
}

/// What can be wrong with a picture, or with how a bundle wants it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes are of no format that can be read.
    #[error(
        "this is no picture that can be read, it looks like {looks_like}; PNG, JPEG, WebP, GIF and BMP can be read"
    )]
    Format {
        /// What the first bytes say, or [`UNKNOWN`].
        looks_like: &'static str,
        /// Other programs can make a picture of it that can be read.
        converts: bool,
    },
    /// The format is known, the contents are broken.
    #[error("this {format} picture is damaged: {reason}")]
    Broken {
        /// `PNG`, `JPEG`, …
        format: String,
        /// What the decoder says.
        reason: String,
    },
    /// More pixels than are ever decoded.
    #[error("the picture has {width} × {height} pixels, at most {limit} are read; scale it down first")]
    Pixels {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// [`MAX_PIXELS`].
        limit: u64,
    },
    /// A picture like a thread.
    #[error("the picture has {width} × {height} pixels, sides of up to {MAX_SIDE} are read; cut it first")]
    Side {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// More bytes than are ever read.
    #[error("the picture has {bytes} bytes, at most {limit} are read")]
    Bytes {
        /// Size of the file.
        bytes: u64,
        /// [`MAX_FILE_BYTES`].
        limit: u64,
    },
    /// The bundle describes its pictures in a way that makes no sense.
    #[error("the bundle's image input is not usable: {0}; compile the model again")]
    Input(String),
    /// The picture is so narrow that the resized one would be too long.
    #[error("a picture of {width} × {height} pixels cannot be resized to a shorter edge of {shortest_edge}")]
    Aspect {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// Pixels.
        shortest_edge: u32,
    },
    /// The picture's features do not fit into the buffer made for them.
    #[error(
        "this picture of {width} × {height} pixels needs {needed} image rows, the bundle has room for {room}; compile the model again"
    )]
    Rows {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// Rows that the tiles become.
        needed: u64,
        /// Rows before the newline's.
        room: u64,
    },
}
