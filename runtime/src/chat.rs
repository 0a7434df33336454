//! What a model reads for a conversation, and what becomes of what it writes.
//!
//! ```text
//! messages ─ template ─▶ text ─ tokenizer ─▶ tokens ─ answers and pictures in ─▶ slots
//! ```
//!
//! Each request makes the slots of its whole conversation; what of them is cached is the engine's business. Answers keep the tokens that
//! were generated: encoding their text anew might give others.

mod answer;
mod decoder;
mod ending;
mod error;
pub(crate) mod forget;
mod marks;
pub(crate) mod prompt;
pub(crate) mod slots;
#[cfg(test)]
pub(crate) mod toy;

use std::sync::Arc;

use dwindle_bundle::ImageInput;

use crate::template::Template;
use crate::tokenizer::Tokenizer;

pub use answer::{Finish, Phase};
pub(crate) use decoder::encode_picture;
pub use decoder::{Decoder, Pool};
pub use error::Error;
pub use marks::Guard;

/// What a model that is talked to consists of, besides weights.
#[derive(Debug)]
pub struct Parts {
    /// Name of the model, for errors.
    pub model: String,
    /// Its tokenizer, which other threads may use meanwhile.
    pub tokenizer: Arc<Tokenizer>,
    /// Its template; without it, texts can only be continued.
    pub template: Option<Template>,
    /// The template's text.
    pub source: Option<String>,
    /// What nobody may write into a message; there where a template is.
    pub guard: Option<Guard>,
    /// How it sees.
    pub image: Option<ImageInput>,
    /// Tokens that the prompts of a model that sees begin with, where the template does not write them.
    pub opening: Vec<u32>,
    /// Tokens that end an answer.
    pub stop: Vec<u32>,
    /// What the user should know about the model, for people, one line each.
    pub notes: Vec<String>,
}

impl Parts {
    /// A model's parts, from its tokenizer and the source of its template.
    ///
    /// `stop` are the tokens that the checkpoint lists as ends of an answer; those that the template writes behind an answer
    /// end it, too, and where they are not listed, a note says so.
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub fn new(
        model: &str,
        tokenizer: Tokenizer,
        template: Option<(Template, &str)>,
        image: Option<ImageInput>,
        mut stop: Vec<u32>,
    ) -> Result<Parts, crate::Error> {
        let mut notes = Vec::new();
        let placeholder = image.as_ref().map(|image| image.placeholder.as_str());
        let text = template.as_ref().map(|(_, source)| (*source).to_owned());
        let (template, guard) = match template {
            None => (None, None),
            Some((template, source)) => {
                let examples = ending::examples(&template);
                for (token, text) in ending::ends(&tokenizer, &examples) {
                    if !stop.contains(&token) {
                        stop.push(token);
                        notes.push(format!(
                            "model `{model}`: its chat template ends an answer with `{text}`, which its configuration does not list as \
                             an end (`eos_token_id`); answers end there, too"
                        ));
                    }
                }
                let written = [source, &examples.concat()].join("\0");
                let more: Vec<&str> = placeholder.into_iter().collect();
                let said = tokenizer.controls(Some(&written), &more)?;
                (Some(template), Some(Guard { said, answered: tokenizer.controls(None, &more)? }))
            }
        };
        let (opening, tokenizer) = (tokenizer.opening()?, Arc::new(tokenizer));
        Ok(Parts { model: model.to_owned(), tokenizer, template, source: text, guard, image, opening, stop, notes })
    }
}
