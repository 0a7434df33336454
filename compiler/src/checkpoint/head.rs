//! Which head counts: the embedding of a tied model, or one of the checkpoint's own.
//!
//! As in transformers 5 (`PreTrainedModel.tie_weights`), a tied model whose checkpoint has a head of other values than the
//! embedding uses that head. One of the same values is only a copy.

use dwindle_schemes::{Format, Role};
use serde_json::{Map, Value};

use super::import::{Packed, Rows};
use super::model_dir::matrix;
use super::names;
use super::safetensors::{SafeTensors, TensorView};
use super::selection::Needs;
use crate::error::Result;
use crate::note::Note;

const KEY: &str = "tie_word_embeddings";

/// Rows that are compared at a time.
const ROWS: usize = 256;

/// Names in transformers 4 of a tied model's embedding and of the head that its checkpoint may have besides; `None` for models
/// that need a head anyway.
pub(super) fn tied(needs: &Needs) -> Option<(String, String)> {
    if needs.tensors.values().any(|(_, role)| *role == Role::Head) {
        return None;
    }
    let (embedding, _) = needs.tensors.iter().find(|(_, (_, role))| *role == Role::Embedding)?;
    let prefix = embedding.strip_suffix("model.embed_tokens.weight")?;
    Some((embedding.clone(), format!("{prefix}lm_head.weight")))
}

/// Unties a configuration.
pub(super) fn untie(config: &mut Map<String, Value>) {
    config.insert(KEY.to_owned(), false.into());
    if let Some(Value::Object(text)) = config.get_mut("text_config")
        && text.contains_key(KEY)
    {
        text.insert(KEY.to_owned(), false.into());
    }
    config.sort_keys();
}

/// The note that the files of a tied model have a head of their own, if they do.
pub(super) fn own_head<'a>(
    needs: &Needs,
    multimodal: bool,
    files: impl IntoIterator<Item = &'a SafeTensors>,
) -> Option<Note> {
    let (embedding, head) = tied(needs)?;
    let views = files.into_iter().flat_map(SafeTensors::tensors);
    let (mut found, mut own) = (None, None);
    for view in views {
        let name = names::canonical(view.name, multimodal);
        if name == embedding {
            found = Some(view);
        } else if name == head {
            own = Some(view);
        }
    }
    let is_copy = |own: &TensorView<'_>, found: &TensorView<'_>| {
        own.shape == found.shape && own.dtype_name == found.dtype_name && own.bytes == found.bytes
    };
    match (own, found) {
        (Some(own), Some(found)) if !is_copy(&own, &found) => Some(Note::OwnHead { tensor: own.name.to_owned() }),
        _ => None,
    }
}

/// The same of a source that hands out rows.
///
/// # Errors
/// Its rows cannot be read.
pub(super) fn own_packed_head(needs: &Needs, source: &dyn Packed) -> Result<Option<Note>> {
    let Some((embedding, head)) = tied(needs) else { return Ok(None) };
    let (Some(found), Some(own)) = (source.offers().get(&embedding), source.offers().get(&head)) else {
        return Ok(None);
    };
    let mut is_copy = found == own && matches!(own.format, Format::Plain(_));
    let (rows, _) = matrix(&own.shape);
    let (mut left, mut right) = (Rows::default(), Rows::default());
    for start in (0..rows).step_by(ROWS) {
        if !is_copy {
            break;
        }
        let range = start..rows.min(start + ROWS);
        source.read(&embedding, range.clone(), &mut left)?;
        source.read(&head, range, &mut right)?;
        is_copy = left.floats == right.floats;
    }
    Ok((!is_copy).then_some(Note::OwnHead { tensor: head }))
}
