//! The logits of every one of some given tokens, to compare with other implementations.

use std::sync::Arc;

use dwindle_bundle::{Bundle, Model};

use crate::chat::slots::{Shown, by_picture, expand, picture, row};
use crate::chat::{self, encode_picture};
use crate::device::{self, Options};
use crate::image::Picture;
use crate::{Error, Executor, Row, Sequence, Workspace, budget};

/// One model of a bundle, on a device.
#[derive(Debug)]
pub struct Scorer {
    sequence: Sequence,
    workspace: Workspace,
    model: Model,
}

impl Scorer {
    /// Loads the model of this name.
    ///
    /// # Errors
    /// [`chat::Error::NoModel`]; those of the device.
    pub fn open(bundle: &Bundle, name: &str, device: &Options) -> Result<Scorer, Error> {
        let manifest = bundle.manifest();
        let model = manifest.models.iter().find(|model| model.name == name).ok_or_else(|| chat::Error::NoModel {
            wanted: name.to_owned(),
            found: manifest.models.iter().map(|model| model.name.clone()).collect(),
        })?;
        let device = device::open(device, &manifest.target)?;
        if let Some(moment) = manifest.memory.alone(&manifest.models, name) {
            budget::check(&moment, device.place())?;
        }
        let loaded = crate::Model::new(Executor::new(&*device, &model.plan, bundle)?, model)?;
        Ok(Scorer { sequence: loaded.sequence()?, workspace: loaded.workspace()?, model: model.clone() })
    }

    /// The logits `[positions, vocab_size]` after each position. Image tokens stand for rows of the pictures, in order: either
    /// one token a picture, which is as many positions as the picture has rows, or as many tokens as rows.
    ///
    /// # Errors
    /// [`chat::Error`] where tokens and pictures do not fit together; those of the device.
    pub fn score(&mut self, tokens: &[u32], pictures: &[Picture]) -> Result<Vec<f32>, Error> {
        let image = self.model.image.as_ref();
        let pictures: Vec<Shown> = match image {
            Some(input) => pictures
                .iter()
                .map(|picture| {
                    let mut shown = Shown::new(Arc::new(picture.clone()), input)?;
                    shown.show(pictures.len() > 1);
                    Ok(shown)
                })
                .collect::<Result<_, Error>>()?,
            None if pictures.is_empty() => Vec::new(),
            None => return Err(chat::Error::Blind { model: self.model.name.clone(), able: Vec::new() }.into()),
        };
        let collapsed = collapse(tokens, image.map(|input| input.token), &pictures);
        let (slots, found) = expand(&collapsed, image, &pictures);
        if found != pictures.len() {
            let placeholder = image.map_or("", |input| &input.placeholder).to_owned();
            return Err(chat::Error::Placeholders { found, pictures: pictures.len(), placeholder }.into());
        }
        let (have, context) = (0, self.model.context);
        if slots.len() > context as usize {
            return Err(Error::ContextFull { have, need: slots.len(), context });
        }
        let (sequence, workspace) = (&mut self.sequence, &mut self.workspace);
        sequence.reset();
        let mut logits = Vec::new();
        for (shown, part) in by_picture(&slots) {
            if let (Some(shown), Some(input)) = (shown.and_then(|hash| picture(hash, &pictures)), image) {
                let encode = |tile, pixels: &[f32]| sequence.encode_tile(tile, pixels, workspace);
                encode_picture(encode, &shown.prepare(input)?, || false)?;
            }
            let rows: Vec<Row> = part.iter().map(|&slot| row(slot, image, &pictures)).collect();
            sequence.score(&rows, workspace, |chunk| {
                logits.extend_from_slice(chunk);
                Ok::<(), Error>(())
            })?;
        }
        Ok(logits)
    }
}

/// One image token a picture, where `tokens` has one for each of its rows.
fn collapse(tokens: &[u32], image: Option<u32>, pictures: &[Shown]) -> Vec<u32> {
    let rows: usize = pictures.iter().map(|picture| picture.blends().len()).sum();
    let given = tokens.iter().filter(|token| Some(**token) == image).count();
    if given != rows || pictures.is_empty() {
        return tokens.to_vec();
    }
    let mut result = Vec::with_capacity(tokens.len());
    let mut ends = pictures.iter().map(|picture| picture.blends().len());
    let mut left = 0;
    for &token in tokens {
        if Some(token) != image {
            result.push(token);
        } else if left == 0 {
            result.push(token);
            left = ends.next().unwrap_or(1).saturating_sub(1);
        } else {
            left -= 1;
        }
    }
    result
}
