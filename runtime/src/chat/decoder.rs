//! What an engine needs of a running model: some sequences, one of which works at a time.

use std::sync::Arc;

use crate::model::Model;
use crate::sequence::{Row, Sequence, Workspace};
use crate::{Error, image};

/// A model with a number of growing sequences of cached positions. [`Pool`] is one; tests have another that needs no device.
pub trait Decoder {
    /// Positions of each sequence.
    fn context(&self) -> u32;
    /// Number of sequences.
    fn slots(&self) -> usize;
    /// Appends rows to a sequence, and gives the logits `[vocab_size]` of the last; `None` where `goes_on`, asked now and then with the
    /// number of positions, says that it is enough.
    ///
    /// # Errors
    /// Whatever the device says.
    fn prefill(
        &mut self,
        slot: usize,
        rows: &[Row],
        goes_on: &mut dyn FnMut(u32) -> bool,
    ) -> Result<Option<&[f32]>, Error>;
    /// Appends one token to a sequence, and gives the logits `[vocab_size]` of what comes next.
    ///
    /// # Errors
    /// Whatever the device says.
    fn decode(&mut self, slot: usize, token: u32) -> Result<&[f32], Error>;
    /// Positions of a sequence.
    fn position(&self, slot: usize) -> u32;
    /// Encodes a tile, pixels `[3, height * width]`, into the image rows that belong to its number.
    ///
    /// # Errors
    /// Whatever the device says.
    fn encode_tile(&mut self, slot: usize, tile: u32, pixels: &[f32]) -> Result<(), Error>;
    /// Forgets the positions of a sequence from this one on.
    ///
    /// # Errors
    /// Where there are fewer.
    fn truncate(&mut self, slot: usize, position: u32) -> Result<(), Error>;
    /// Makes a sequence a copy of the first positions of another one.
    ///
    /// # Errors
    /// Where there are fewer; whatever the device says.
    fn fork(&mut self, from: usize, to: usize, position: u32) -> Result<(), Error>;
    /// Gives back what memory it can until [`Decoder::load`]; with `forget`, the sequences', too.
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

/// A model on a device with some sequences, and a workspace that they use in turn.
#[derive(Debug)]
pub struct Pool {
    model: Arc<Model>,
    slots: usize,
    /// None while their memory is given back.
    sequences: Vec<Sequence>,
    workspace: Option<Workspace>,
}

impl Pool {
    /// Sequences of a model, which has no memory until [`Decoder::load`].
    pub fn new(model: Arc<Model>, slots: usize) -> Pool {
        Pool { model, slots, sequences: Vec::new(), workspace: None }
    }

    /// A sequence.
    ///
    /// # Errors
    /// [`Error::Plan`] while the model is not loaded.
    pub fn sequence(&mut self, slot: usize) -> Result<&mut Sequence, Error> {
        self.sequences.get_mut(slot).ok_or_else(unloaded)
    }

    fn work(&mut self, slot: usize) -> Result<(&mut Sequence, &mut Workspace), Error> {
        self.sequences.get_mut(slot).zip(self.workspace.as_mut()).ok_or_else(unloaded)
    }
}

fn unloaded() -> Error {
    Error::Plan { why: "the model is not loaded".to_owned() }
}

impl Decoder for Pool {
    fn context(&self) -> u32 {
        self.model.context()
    }

    fn slots(&self) -> usize {
        self.slots
    }

    fn prefill(
        &mut self,
        slot: usize,
        rows: &[Row],
        goes_on: &mut dyn FnMut(u32) -> bool,
    ) -> Result<Option<&[f32]>, Error> {
        let (sequence, workspace) = self.work(slot)?;
        sequence.prefill_while(rows, workspace, goes_on)
    }

    fn decode(&mut self, slot: usize, token: u32) -> Result<&[f32], Error> {
        let (sequence, workspace) = self.work(slot)?;
        sequence.decode(token, workspace)
    }

    fn position(&self, slot: usize) -> u32 {
        self.sequences.get(slot).map_or(0, Sequence::position)
    }

    fn encode_tile(&mut self, slot: usize, tile: u32, pixels: &[f32]) -> Result<(), Error> {
        let (sequence, workspace) = self.work(slot)?;
        sequence.encode_tile(tile, pixels, workspace)
    }

    fn truncate(&mut self, slot: usize, position: u32) -> Result<(), Error> {
        match self.sequences.get_mut(slot) {
            Some(sequence) => sequence.truncate(position),
            None if position == 0 => Ok(()),
            None => Err(unloaded()),
        }
    }

    fn fork(&mut self, from: usize, to: usize, position: u32) -> Result<(), Error> {
        match self.sequences.get_disjoint_mut([from, to]) {
            Ok([from, to]) => to.fork(from, position),
            Err(_) => Err(unloaded()),
        }
    }

    fn unload(&mut self, forget: bool) -> Result<(), Error> {
        // It holds the weights that it has bound.
        self.workspace = None;
        if forget {
            self.sequences.clear();
        }
        self.model.unload()
    }

    fn load(&mut self) -> Result<(), Error> {
        self.model.load()?;
        while self.sequences.len() < self.slots {
            self.sequences.push(self.model.sequence()?);
        }
        if self.workspace.is_none() {
            self.workspace = Some(self.model.workspace()?);
        }
        Ok(())
    }
}

/// Encodes all tiles of a picture, one after the other; `false` if `stop` said so in between.
pub(crate) fn encode_picture(
    mut encode: impl FnMut(u32, &[f32]) -> Result<(), Error>,
    picture: &image::Prepared,
    stop: impl Fn() -> bool,
) -> Result<bool, Error> {
    for (number, pixels) in (0..).zip(picture.tiles()) {
        if stop() {
            return Ok(false);
        }
        encode(number, &pixels)?;
    }
    Ok(true)
}
