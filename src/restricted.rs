//! Answers that are restricted to a JSON schema: the model's tokens for the mask, and `run --json-schema`.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use dwindle_constrain::{Constrainer, Grammar, Token, Vocabulary};
use dwindle_runtime::tokenizer::Tokenizer;
use dwindle_runtime::{Conversation, Error};

/// The tokens of a model as restrictions see them.
pub fn vocabulary(tokenizer: &Tokenizer, tokens: u32, ends: &[u32]) -> Vocabulary {
    let token = |number: u32| {
        let bytes = tokenizer.token_bytes(number);
        match bytes.is_empty() || tokenizer.is_special(number) || ends.contains(&number) {
            true => Token::Control,
            false => Token::Bytes(bytes),
        }
    };
    Vocabulary { tokens: (0..tokens).map(token).collect(), ends: ends.to_vec() }
}

/// Restricts all answers of a conversation to the JSON schema in a file.
///
/// # Errors
/// The file cannot be read, or its schema not be used.
pub fn restrict(conversation: &mut Conversation, file: &Path) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let named = || format!("{} holds no JSON schema that can be used", file.display());
    let schema: serde_json::Value = serde_json::from_str(&text).with_context(named)?;
    let engine = conversation.engine();
    let vocabulary = vocabulary(engine.tokenizer(), engine.info().vocab_size, engine.ends());
    let constrainer = Arc::new(Constrainer::new(&vocabulary)?);
    let grammar = Grammar::JsonSchema(schema);
    // Wrong schemas are told before anything is asked.
    constrainer.mask(&grammar).with_context(named)?;
    conversation.restrict(move || constrainer.mask(&grammar).map_err(|error| Error::Mask { why: error.to_string() }));
    Ok(())
}
