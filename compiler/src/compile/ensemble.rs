//! Which models work together, and how.

use dwindle_bundle::Ensemble;

use super::{CompileOptions, Prepared};
use crate::error::{Error, Result};

/// What the describing model is asked, unless the user says otherwise.
pub const DESCRIBE_PROMPT: &str = "Describe the image.";

/// How descriptions reach the chat model, unless the user says otherwise.
pub const HANDOVER: &str = "{% for description in descriptions %}The user shared an image. Image description: {{ description }}\n{% endfor %}{{ message }}";

/// The ensemble of these models: none for one model; for two, one must see and the other must not.
///
/// # Errors
/// Other numbers or kinds of models, or two of one name.
pub fn ensemble(models: &[Prepared], options: &CompileOptions) -> Result<Option<Ensemble>> {
    let [a, b] = match models {
        [_] => return Ok(None),
        [a, b] => [a, b],
        _ => {
            let reason = format!("{} models are given, a bundle holds one or two", models.len());
            return Err(Error::Ensemble { reason });
        }
    };
    if a.name() == b.name() {
        let reason = format!("both models are called `{}`: rename one of the directories", a.name());
        return Err(Error::Ensemble { reason });
    }
    let (describe, chat) = match (a.family.image(), b.family.image()) {
        (Some(_), None) => (a, b),
        (None, Some(_)) => (b, a),
        (sees, _) => {
            let both = if sees.is_some() { "both see pictures" } else { "none of them sees pictures" };
            let reason = format!(
                "`{}` and `{}` make no ensemble: {both}; it takes one model that does and one text model",
                a.name(),
                b.name()
            );
            return Err(Error::Ensemble { reason });
        }
    };
    Ok(Some(Ensemble {
        describe: describe.name().to_owned(),
        chat: chat.name().to_owned(),
        describe_prompt: options.describe_prompt.clone(),
        handover: options.handover.clone(),
        residency: options.residency,
    }))
}
