//! What a chat cannot do, and why.

/// A chat asks for what its model or bundle cannot do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The checkpoint came without a tokenizer.
    #[error("model `{model}` has no tokenizer: its checkpoint came without tokenizer.json; add it and compile again")]
    NoTokenizer {
        /// Name of the model.
        model: String,
    },
    /// The checkpoint came without a chat template.
    #[error("model `{model}` has no chat template, so it cannot chat; `--raw` continues a text")]
    NoTemplate {
        /// Name of the model.
        model: String,
    },
    /// Pictures for a model that sees none.
    #[error("model `{model}` cannot see pictures{}", seeing(able))]
    Blind {
        /// Name of the model.
        model: String,
        /// Models of the bundle that could.
        able: Vec<String>,
    },
    /// A prompt with more or fewer places for pictures than pictures.
    #[error("the prompt has {found} places for pictures (`{placeholder}`), but {pictures} new pictures were given")]
    Placeholders {
        /// Placeholders in the prompt's text.
        found: usize,
        /// Pictures.
        pictures: usize,
        /// The placeholder's text.
        placeholder: String,
    },
    /// A message that the context cannot hold, even alone.
    #[error(
        "this message takes {tokens} positions with the instructions and what the chat template puts around it, the context has \
         {context}; shorten it, or compile with a longer `--context`"
    )]
    TooLong {
        /// Positions of the prompt without any earlier turn.
        tokens: usize,
        /// Positions in all.
        context: u32,
    },
    /// A bundle of several models that does not say how they work together.
    #[error("the bundle has several models ({}) but does not say how they work together; compile it anew", models.join(", "))]
    Models {
        /// Their names.
        models: Vec<String>,
    },
    /// A name that the bundle does not have.
    #[error("the bundle has no model `{wanted}`; it has {}", found.join(", "))]
    NoModel {
        /// The name.
        wanted: String,
        /// Names of its models.
        found: Vec<String>,
    },
}

fn seeing(able: &[String]) -> String {
    match able {
        [] => "; bundle it with a model that describes them: `dwindle compile CHAT_MODEL VISION_MODEL`".to_owned(),
        able => format!("; in this bundle, {} can", able.join(", ")),
    }
}
