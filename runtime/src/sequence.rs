//! The positions of one conversation with a model: what its KV cache holds, and what comes next.
//!
//! Rows (tokens, or image rows in their places) are appended to the cache, which never moves. Whatever the chunks a
//! prompt is cut into, a row sees the same rows before it, so logits do not depend on the cut.

use std::sync::Arc;

use dwindle_bundle::{Call, ImageInput, PortType};

use crate::Error;
use crate::device;
use crate::executor::{Lane, States};
use crate::image::Blend;
use crate::model::Model;

/// One position of a prompt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// The token; whatever it is where `blend` takes its place.
    pub token: u32,
    /// The image rows whose weighted sum stands here instead of the token's embedding; [`Blend::NONE`] for text.
    pub blend: Blend,
}

impl From<u32> for Row {
    fn from(token: u32) -> Row {
        Row { token, blend: Blend::NONE }
    }
}

/// What calls of a model work in, and the logits of the last one.
#[derive(Debug)]
pub struct Workspace {
    memory: Box<dyn device::Workspace>,
    /// Kept so that generation allocates nothing.
    logits: Vec<f32>,
}

impl Workspace {
    pub(crate) fn new(memory: Box<dyn device::Workspace>) -> Workspace {
        Workspace { memory, logits: Vec::new() }
    }

    /// Waits until all calls are done.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn wait(&self) -> Result<(), Error> {
        self.memory.wait()
    }

    /// The device's part, for reading outputs other than logits.
    pub fn memory(&mut self) -> &mut dyn device::Workspace {
        &mut *self.memory
    }
}

/// The KV cache of one conversation with a model. Sequences of one model share its weights.
#[derive(Debug)]
pub struct Sequence {
    model: Arc<Model>,
    states: States,
    position: u32,
}

impl Sequence {
    pub(crate) fn new(model: Arc<Model>, states: States) -> Sequence {
        Sequence { model, states, position: 0 }
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Positions in use.
    pub fn position(&self) -> u32 {
        self.position
    }

    /// Appends rows and gives the logits `[vocab_size]` of the last.
    ///
    /// # Errors
    /// [`Error::ContextFull`], [`Error::Token`], [`Error::ImageRows`] before anything is appended; the device's errors.
    pub fn prefill<'w>(&mut self, rows: &[Row], workspace: &'w mut Workspace) -> Result<&'w [f32], Error> {
        self.prefill_by(u32::MAX, rows, workspace)
    }

    /// [`Sequence::prefill`] in chunks of at most `most` rows, which makes no difference but for speed and memory.
    ///
    /// # Errors
    /// As [`Sequence::prefill`].
    pub fn prefill_by<'w>(
        &mut self,
        most: u32,
        rows: &[Row],
        workspace: &'w mut Workspace,
    ) -> Result<&'w [f32], Error> {
        self.append(most, rows, workspace, None)?;
        Ok(&workspace.logits)
    }

    /// [`Sequence::prefill`] that asks `goes_on` after each chunk but the last, and ends where it says no: `None` then, and the chunks
    /// that were read stay.
    ///
    /// # Errors
    /// As [`Sequence::prefill`].
    pub fn prefill_while<'w>(
        &mut self,
        rows: &[Row],
        workspace: &'w mut Workspace,
        goes_on: &mut dyn FnMut(u32) -> bool,
    ) -> Result<Option<&'w [f32]>, Error> {
        let is_done = self.append(u32::MAX, rows, workspace, Some(goes_on))?;
        Ok(is_done.then_some(&workspace.logits))
    }

    /// Appends rows in chunks; whether all of them.
    fn append(
        &mut self,
        most: u32,
        rows: &[Row],
        workspace: &mut Workspace,
        mut goes_on: Option<&mut dyn FnMut(u32) -> bool>,
    ) -> Result<bool, Error> {
        self.check(rows)?;
        let mut chunks = rows.chunks(self.chunk("prefill", most)?).peekable();
        while let Some(chunk) = chunks.next() {
            let call = self.write("prefill", chunk, workspace)?;
            let model = self.model.clone();
            let mut lane = Lane { states: &mut *self.states, workspace: &mut *workspace.memory };
            match chunks.peek() {
                // Nothing waits for these: the device does one after the other.
                Some(_) => model.executor().run("prefill", call, &mut lane)?,
                None => {
                    model.executor().run_and_read("prefill", call, &mut lane, "logits", &mut workspace.logits)?;
                }
            }
            self.position += call.rows;
            if let (Some(goes_on), Some(_)) = (&mut goes_on, chunks.peek()) {
                // Whoever may end it has to know how far it is.
                workspace.memory.wait()?;
                if !goes_on(self.position) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Appends one token and gives the logits `[vocab_size]` of what comes next.
    ///
    /// # Errors
    /// As [`Sequence::prefill`].
    pub fn decode<'w>(&mut self, token: u32, workspace: &'w mut Workspace) -> Result<&'w [f32], Error> {
        let rows = [Row::from(token)];
        self.check(&rows)?;
        let call = self.write("decode", &rows, workspace)?;
        let mut lane = Lane { states: &mut *self.states, workspace: &mut *workspace.memory };
        self.model.executor().run_and_read("decode", call, &mut lane, "logits", &mut workspace.logits)?;
        self.position += 1;
        Ok(&workspace.logits)
    }

    /// Appends rows and gives the logits of each, `[rows, vocab_size]`, to `take`: chunk by chunk, because all of them
    /// together may not fit into memory.
    ///
    /// # Errors
    /// As [`Sequence::prefill`], and whatever `take` returns.
    pub fn score<E: From<Error>>(
        &mut self,
        rows: &[Row],
        workspace: &mut Workspace,
        mut take: impl FnMut(&[f32]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.check(rows)?;
        for chunk in rows.chunks(self.chunk("score", u32::MAX)?) {
            let call = self.write("score", chunk, workspace)?;
            let mut lane = Lane { states: &mut *self.states, workspace: &mut *workspace.memory };
            self.model.executor().run_and_read("score", call, &mut lane, "logits", &mut workspace.logits)?;
            self.position += call.rows;
            take(&workspace.logits)?;
        }
        Ok(())
    }

    /// Encodes a tile of a picture, pixels `[3, height * width]`, into its image rows: from row
    /// `tile * rows * columns` on.
    ///
    /// # Errors
    /// [`Error::ImageRows`] for a model without eyes or a tile beyond its image rows; [`Error::PortSize`].
    pub fn encode_tile(&mut self, tile: u32, pixels: &[f32], workspace: &mut Workspace) -> Result<(), Error> {
        let image = self.image()?;
        let rows = u64::from(image.tile.rows) * u64::from(image.tile.columns);
        let room = image.newline.unwrap_or(image.max_image_rows).min(image.max_image_rows);
        if (u64::from(tile) + 1).checked_mul(rows).is_none_or(|end| end > u64::from(room)) {
            return Err(Error::ImageRows { why: format!("tile {tile} of {rows} rows does not fit into {room} rows") });
        }
        self.model.executor().write_input("encode_image", "pixels", pixels, &*workspace.memory)?;
        let mut lane = Lane { states: &mut *self.states, workspace: &mut *workspace.memory };
        self.model.executor().run("encode_image", Call { rows: 1, position: 0, tile }, &mut lane)
    }

    /// Forgets all positions from `position` on; what was before them is not computed again.
    ///
    /// # Errors
    /// [`Error::Truncate`] where there are fewer.
    pub fn truncate(&mut self, position: u32) -> Result<(), Error> {
        if position > self.position {
            return Err(Error::Truncate { wanted: position, have: self.position });
        }
        self.position = position;
        Ok(())
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        self.position = 0;
    }

    /// Becomes a copy of the first `position` positions of another sequence of the same model. Image rows that were not read yet
    /// are left out.
    ///
    /// # Errors
    /// [`Error::Truncate`] where there are fewer; [`Error::Plan`] where it is of another model.
    pub fn fork(&mut self, from: &Sequence, position: u32) -> Result<(), Error> {
        if position > from.position {
            return Err(Error::Truncate { wanted: position, have: from.position });
        }
        if !Arc::ptr_eq(&self.model, &from.model) {
            return Err(Error::Plan { why: "a sequence of another model cannot be copied".to_owned() });
        }
        self.position = 0;
        let caches: Vec<(usize, u64)> = self.model.caches(position).collect();
        self.states.copy_from(&*from.states, &caches)?;
        self.position = position;
        Ok(())
    }

    /// Bytes of the states of that many positions.
    pub(crate) fn state_bytes(&self, positions: u32) -> u64 {
        self.model.caches(positions).map(|(_, bytes)| bytes).fold(0, u64::saturating_add)
    }

    /// Hands out the states of all positions, one after the other.
    pub(crate) fn read_states(&self, take: &mut dyn FnMut(&[u8])) -> Result<(), Error> {
        self.model.caches(self.position).try_for_each(|(buffer, bytes)| self.states.read(buffer, bytes, take))
    }

    /// Replaces everything by `positions` positions, whose states `fill` writes, as [`Sequence::read_states`] gave them.
    pub(crate) fn write_states<E: From<Error>>(
        &mut self,
        positions: u32,
        mut fill: impl FnMut(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        const PART: u64 = 4 << 20;
        self.position = 0;
        let mut part = Vec::new();
        let caches: Vec<(usize, u64)> = self.model.caches(positions).collect();
        for (buffer, bytes) in caches {
            for offset in (0..bytes).step_by(PART as usize) {
                part.resize((bytes - offset).min(PART) as usize, 0);
                fill(&mut part)?;
                self.states.write(buffer, offset, &part)?;
            }
        }
        self.position = positions;
        Ok(())
    }

    fn check(&self, rows: &[Row]) -> Result<(), Error> {
        if rows.is_empty() {
            return Err(Error::NoTokens);
        }
        if rows.len() > (self.model.context() - self.position) as usize {
            return Err(Error::ContextFull { have: self.position, need: rows.len(), context: self.model.context() });
        }
        for Row { token, blend } in rows {
            if blend.index[0] < 0 {
                let vocab_size = self.model.vocab_size();
                if *token >= vocab_size {
                    return Err(Error::Token { token: *token, vocab_size });
                }
                continue;
            }
            let most = self.image()?.max_image_rows;
            if let Some(row) = blend.index.iter().find(|&&row| u32::try_from(row).map_or(true, |row| row >= most)) {
                return Err(Error::ImageRows { why: format!("row {row} is asked for, there are {most}") });
            }
        }
        Ok(())
    }

    fn image(&self) -> Result<&ImageInput, Error> {
        self.model.image().ok_or_else(|| Error::ImageRows { why: "this model takes no pictures".to_owned() })
    }

    /// Rows of a chunk: what the function takes, and at most `most`.
    fn chunk(&self, function: &str, most: u32) -> Result<usize, Error> {
        Ok(self.model.function(function)?.max_rows.min(most).max(1) as usize)
    }

    /// Writes the inputs of a call with these rows.
    fn write(&self, name: &str, rows: &[Row], workspace: &Workspace) -> Result<Call, Error> {
        let (executor, memory) = (self.model.executor(), &*workspace.memory);
        // The embedding of an image row's token is replaced, so any token of the vocabulary does.
        let tokens: Vec<u32> = rows.iter().map(|row| if row.blend.index[0] < 0 { row.token } else { 0 }).collect();
        executor.write_input(name, "tokens", &tokens, memory)?;
        let inputs = &self.model.function(name)?.inputs;
        if inputs.iter().any(|port| port.name == "image_index" && port.dtype == PortType::I32) {
            let index: Vec<i32> = rows.iter().flat_map(|row| row.blend.index).collect();
            let weight: Vec<f32> = rows.iter().flat_map(|row| row.blend.weight).collect();
            executor.write_input(name, "image_index", &index, memory)?;
            executor.write_input(name, "image_weight", &weight, memory)?;
        } else if rows.iter().any(|row| row.blend.index[0] >= 0) {
            return Err(Error::ImageRows { why: format!("function `{name}` takes none") });
        }
        Ok(Call { rows: rows.len() as u32, position: self.position, tile: 0 })
    }
}

#[cfg(test)]
mod tests;
