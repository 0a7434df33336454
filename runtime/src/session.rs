//! One conversation with one model: what its KV cache holds, and what comes next.
//!
//! Rows (tokens, or image rows in their places) are appended to the cache, which never moves. Whatever the chunks a
//! prompt is cut into, a row sees the same rows before it, so logits do not depend on the cut.

use dwindle_bundle::{Bundle, Call, Function, ImageInput, Model, PortType};

use crate::Error;
use crate::executor::Executor;
use crate::image::Blend;

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

/// A model on a device with the positions of one conversation.
#[derive(Debug)]
pub struct Session {
    executor: Executor,
    context: u32,
    vocab_size: u32,
    image: Option<ImageInput>,
    /// Where weights come from when they are loaded again.
    bundle: Option<Bundle>,
    position: u32,
    /// Logits of the last call, kept so that generation allocates nothing.
    logits: Vec<f32>,
}

impl Session {
    /// A conversation that has not begun.
    ///
    /// # Errors
    /// [`Error::Plan`] where the plan's logits do not have the columns that the model claims.
    pub fn new(executor: Executor, model: &Model) -> Result<Session, Error> {
        for (name, function) in &executor.plan().functions {
            for port in function.outputs.iter().filter(|port| port.name == "logits") {
                if port.columns != model.vocab_size {
                    let why =
                        format!("`{name}` gives {} logits, the vocabulary has {}", port.columns, model.vocab_size);
                    return Err(Error::Plan { why });
                }
            }
        }
        let (context, vocab_size, image) = (model.context, model.vocab_size, model.image.clone());
        Ok(Session { executor, context, vocab_size, image, bundle: None, position: 0, logits: Vec::new() })
    }

    /// The same with the bundle that its model is from, so that it can be unloaded and loaded again.
    pub fn reloadable(self, bundle: &Bundle) -> Session {
        Session { bundle: Some(bundle.clone()), ..self }
    }

    /// Gives the memory of weights and intermediate values back until [`Session::load`], and with `forget` that of the
    /// positions, too. Does nothing to a session that is not reloadable.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn unload(&mut self, forget: bool) -> Result<(), Error> {
        if self.bundle.is_none() {
            return Ok(());
        }
        if forget {
            self.reset();
        }
        self.logits = Vec::new();
        self.executor.unload(!forget)
    }

    /// Makes the session usable again after [`Session::unload`].
    ///
    /// # Errors
    /// Those of [`Executor::load`].
    pub fn load(&mut self) -> Result<(), Error> {
        match &self.bundle {
            Some(bundle) => self.executor.load(bundle),
            None => Ok(()),
        }
    }

    /// Positions in use.
    pub fn position(&self) -> u32 {
        self.position
    }

    /// Positions in all.
    pub fn context(&self) -> u32 {
        self.context
    }

    /// The executor, for reading other outputs of the last call.
    pub fn executor(&mut self) -> &mut Executor {
        &mut self.executor
    }

    /// Appends rows and gives the logits `[vocab_size]` of the last.
    ///
    /// # Errors
    /// [`Error::ContextFull`], [`Error::Token`], [`Error::ImageRows`] before anything is appended; the device's errors.
    pub fn prefill(&mut self, rows: &[Row]) -> Result<&[f32], Error> {
        self.prefill_by(u32::MAX, rows)
    }

    /// [`Session::prefill`] in chunks of at most `most` rows, which makes no difference but for speed and memory.
    ///
    /// # Errors
    /// As [`Session::prefill`].
    pub fn prefill_by(&mut self, most: u32, rows: &[Row]) -> Result<&[f32], Error> {
        self.check(rows)?;
        let mut chunks = rows.chunks(self.chunk("prefill", most)?).peekable();
        while let Some(chunk) = chunks.next() {
            let call = self.write("prefill", chunk)?;
            match chunks.peek() {
                // Nothing waits for these: the device does one after the other.
                Some(_) => self.executor.run("prefill", call)?,
                None => self.executor.run_and_read("prefill", call, "logits", &mut self.logits)?,
            }
            self.position += call.rows;
        }
        Ok(&self.logits)
    }

    /// Appends one token and gives the logits `[vocab_size]` of what comes next.
    ///
    /// # Errors
    /// As [`Session::prefill`].
    pub fn decode(&mut self, token: u32) -> Result<&[f32], Error> {
        let rows = [Row::from(token)];
        self.check(&rows)?;
        let call = self.write("decode", &rows)?;
        self.executor.run_and_read("decode", call, "logits", &mut self.logits)?;
        self.position += 1;
        Ok(&self.logits)
    }

    /// Appends rows and gives the logits of each, `[rows, vocab_size]`, to `take`: chunk by chunk, because all of them
    /// together may not fit into memory.
    ///
    /// # Errors
    /// As [`Session::prefill`], and whatever `take` returns.
    pub fn score<E: From<Error>>(
        &mut self,
        rows: &[Row],
        mut take: impl FnMut(&[f32]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.check(rows)?;
        for chunk in rows.chunks(self.chunk("score", u32::MAX)?) {
            let call = self.write("score", chunk)?;
            self.executor.run_and_read("score", call, "logits", &mut self.logits)?;
            self.position += call.rows;
            take(&self.logits)?;
        }
        Ok(())
    }

    /// Encodes a tile of a picture, pixels `[3, height * width]`, into its image rows: from row
    /// `tile * rows * columns` on.
    ///
    /// # Errors
    /// [`Error::ImageRows`] for a model without eyes or a tile beyond its image rows; [`Error::PortSize`].
    pub fn encode_tile(&mut self, tile: u32, pixels: &[f32]) -> Result<(), Error> {
        let image = self.image()?;
        let rows = u64::from(image.tile.rows) * u64::from(image.tile.columns);
        let room = image.newline.unwrap_or(image.max_image_rows).min(image.max_image_rows);
        if (u64::from(tile) + 1).checked_mul(rows).is_none_or(|end| end > u64::from(room)) {
            return Err(Error::ImageRows { why: format!("tile {tile} of {rows} rows does not fit into {room} rows") });
        }
        self.executor.write_input("encode_image", "pixels", pixels)?;
        self.executor.run("encode_image", Call { rows: 1, position: 0, tile })
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

    fn check(&self, rows: &[Row]) -> Result<(), Error> {
        if rows.is_empty() {
            return Err(Error::NoTokens);
        }
        if rows.len() > (self.context - self.position) as usize {
            return Err(Error::ContextFull { have: self.position, need: rows.len(), context: self.context });
        }
        for Row { token, blend } in rows {
            if blend.index[0] < 0 {
                if *token >= self.vocab_size {
                    return Err(Error::Token { token: *token, vocab_size: self.vocab_size });
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
        self.image.as_ref().ok_or_else(|| Error::ImageRows { why: "this model takes no pictures".to_owned() })
    }

    /// Rows of a chunk: what the function takes, and at most `most`.
    fn chunk(&self, function: &str, most: u32) -> Result<usize, Error> {
        Ok(self.function(function)?.max_rows.min(most).max(1) as usize)
    }

    fn function(&self, name: &str) -> Result<&Function, Error> {
        let functions = &self.executor.plan().functions;
        functions
            .get(name)
            .ok_or_else(|| Error::NoFunction { function: name.to_owned(), found: functions.keys().cloned().collect() })
    }

    /// Writes the inputs of a call with these rows.
    fn write(&self, name: &str, rows: &[Row]) -> Result<Call, Error> {
        // The embedding of an image row's token is replaced, so any token of the vocabulary does.
        let tokens: Vec<u32> = rows.iter().map(|row| if row.blend.index[0] < 0 { row.token } else { 0 }).collect();
        self.executor.write_input(name, "tokens", &tokens)?;
        let inputs = &self.function(name)?.inputs;
        if inputs.iter().any(|port| port.name == "image_index" && port.dtype == PortType::I32) {
            let index: Vec<i32> = rows.iter().flat_map(|row| row.blend.index).collect();
            let weight: Vec<f32> = rows.iter().flat_map(|row| row.blend.weight).collect();
            self.executor.write_input(name, "image_index", &index)?;
            self.executor.write_input(name, "image_weight", &weight)?;
        } else if rows.iter().any(|row| row.blend.index[0] >= 0) {
            return Err(Error::ImageRows { why: format!("function `{name}` takes none") });
        }
        Ok(Call { rows: rows.len() as u32, position: self.position, tile: 0 })
    }
}

#[cfg(test)]
mod tests;
