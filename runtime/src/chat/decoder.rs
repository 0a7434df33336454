//! What a chat needs of a running model.

use crate::session::{Row, Session};
use crate::{Error, image};

/// A model with one growing sequence of cached positions. [`Session`] is one; tests have another that needs no device.
pub trait Decoder {
    /// Positions in all.
    fn context(&self) -> u32;
    /// Appends rows, and gives the logits `[vocab_size]` of the last.
    ///
    /// # Errors
    /// Whatever the device says.
    fn prefill(&mut self, rows: &[Row]) -> Result<&[f32], Error>;
    /// Appends one token, and gives the logits `[vocab_size]` of what comes next.
    ///
    /// # Errors
    /// Whatever the device says.
    fn decode(&mut self, token: u32) -> Result<&[f32], Error>;
    /// Encodes a tile, pixels `[3, height * width]`, into the image rows that belong to its number.
    ///
    /// # Errors
    /// Whatever the device says.
    fn encode_tile(&mut self, tile: u32, pixels: &[f32]) -> Result<(), Error>;
    /// Forgets the positions from this one on.
    ///
    /// # Errors
    /// Where there are fewer.
    fn truncate(&mut self, position: u32) -> Result<(), Error>;
    /// Gives back what memory it can until [`Decoder::load`]; with `forget`, the positions' too.
    ///
    /// # Errors
    /// Whatever the device says.
    fn unload(&mut self, forget: bool) -> Result<(), Error>;
    /// Makes it usable again.
    ///
    /// # Errors
    /// Whatever the device says, for lack of memory for example.
    fn load(&mut self) -> Result<(), Error>;
}

impl Decoder for Session {
    fn context(&self) -> u32 {
        self.context()
    }

    fn prefill(&mut self, rows: &[Row]) -> Result<&[f32], Error> {
        self.prefill(rows)
    }

    fn decode(&mut self, token: u32) -> Result<&[f32], Error> {
        self.decode(token)
    }

    fn encode_tile(&mut self, tile: u32, pixels: &[f32]) -> Result<(), Error> {
        self.encode_tile(tile, pixels)
    }

    fn truncate(&mut self, position: u32) -> Result<(), Error> {
        self.truncate(position)
    }

    fn unload(&mut self, forget: bool) -> Result<(), Error> {
        self.unload(forget)
    }

    fn load(&mut self) -> Result<(), Error> {
        self.load()
    }
}

/// Encodes all tiles of a picture, one after the other; `false` if `stop` said so in between.
pub(crate) fn encode_picture(
    decoder: &mut impl Decoder,
    picture: &image::Prepared,
    stop: impl Fn() -> bool,
) -> Result<bool, Error> {
    for (number, pixels) in (0..).zip(picture.tiles()) {
        if stop() {
            return Ok(false);
        }
        decoder.encode_tile(number, &pixels)?;
    }
    Ok(true)
}
