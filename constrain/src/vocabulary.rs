//! The tokens of a model as the restriction sees them: which bytes each one adds to an answer.

use llguidance::toktrie::TokTrie;

/// A token as a part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// It adds these bytes; never empty.
    Bytes(Vec<u8>),
    /// It adds nothing: a control token, or a number without a token.
    Control,
}

/// The tokens of a model.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    /// By number; as many as the model has logits.
    pub tokens: Vec<Token>,
    /// Tokens that end an answer.
    pub ends: Vec<u32>,
}

impl Vocabulary {
    /// The bytes of each token as the trie wants them: control tokens have names that no text can spell.
    pub(crate) fn words(&self) -> Vec<Vec<u8>> {
        let word = |(number, token): (usize, &Token)| match token {
            // Lengths are stored in 16 bits.
            Token::Bytes(bytes) if !bytes.is_empty() && bytes.len() < usize::from(u16::MAX) => bytes.clone(),
            _ => [&[TokTrie::SPECIAL_TOKEN_MARKER][..], format!("<{number}>").as_bytes()].concat(),
        };
        self.tokens.iter().enumerate().map(word).collect()
    }
}
