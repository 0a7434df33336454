//! The mask over logits: llguidance's parser over the model's token trie, which is built once.

use std::sync::Arc;

use dwindle_runtime::engine::TokenMask;
use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};

use crate::{Error, Grammar, Vocabulary};

/// Makes masks for one model.
pub struct Constrainer {
    factory: ParserFactory,
    tokens: usize,
}

impl std::fmt::Debug for Constrainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Constrainer({} tokens)", self.tokens)
    }
}

impl Constrainer {
    /// Builds the trie of a model's tokens.
    ///
    /// # Errors
    /// [`Error::NoEnd`]; [`Error::Schema`] for tokens that no trie can be made of.
    pub fn new(vocabulary: &Vocabulary) -> Result<Constrainer, Error> {
        let tokens = vocabulary.tokens.len();
        let ends: Vec<u32> = vocabulary.ends.iter().copied().filter(|end| (*end as usize) < tokens).collect();
        let first = *ends.first().ok_or(Error::NoEnd)?;
        let size = u32::try_from(tokens).map_err(|_| Error::NoEnd)?;
        let trie = TokTrie::from(&TokRxInfo::new(size, first), &vocabulary.words()).with_eos_tokens(&ends);
        // Not canonical: texts are not tokenized again, so no token is forced.
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&environment).map_err(schema)?;
        factory.quiet();
        *factory.limits_mut() = ParserLimits {
            initial_lexer_fuel: 1_000_000,
            step_lexer_fuel: 200_000,
            step_max_items: 50_000,
            max_items_in_row: 2_000,
            max_lexer_states: 30_000,
            max_grammar_size: 200_000,
            precompute_large_lexemes: false,
            // An error must not repeat the grammar, which may hold what nobody should read in a log.
            verbose_errors: false,
        };
        Ok(Constrainer { factory, tokens })
    }

    /// A mask for one answer.
    ///
    /// # Errors
    /// What is wrong with a schema.
    pub fn mask(&self, grammar: &Grammar) -> Result<Box<dyn TokenMask>, Error> {
        let grammar = TopLevelGrammar::from_lark(grammar.lark()?);
        let parser = self.factory.create_parser(grammar).map_err(schema)?;
        let mut matcher = Matcher::new(Ok(parser));
        // What contradicts itself shows with the first token.
        if let Err(error) = matcher.compute_mask_or_eos() {
            return Err(schema(error));
        }
        Ok(Box::new(Mask { matcher }))
    }
}

/// llguidance's words for what is wrong, without its marks.
fn schema(error: impl std::fmt::Display) -> Error {
    let text = error.to_string();
    let why = text.split("\n<").next().unwrap_or_default().trim().chars().take(400).collect();
    Error::Schema { why }
}

struct Mask {
    matcher: Matcher,
}

fn failed(error: impl std::fmt::Display) -> dwindle_runtime::Error {
    let Error::Schema { why } = schema(error) else { return dwindle_runtime::Error::Mask { why: String::new() } };
    dwindle_runtime::Error::Mask { why }
}

impl TokenMask for Mask {
    fn mask(&mut self, logits: &mut [f32]) -> Result<(), dwindle_runtime::Error> {
        let allowed = self.matcher.compute_mask_or_eos().map_err(failed)?;
        let mut any = false;
        for (token, logit) in (0u32..).zip(logits.iter_mut()) {
            match (token as usize) < allowed.len() && allowed.is_allowed(token) {
                true => any = true,
                false => *logit = f32::NEG_INFINITY,
            }
        }
        match any {
            true => Ok(()),
            false => Err(dwindle_runtime::Error::Mask { why: "no token can come next".to_owned() }),
        }
    }

    fn accept(&mut self, token: u32) -> Result<bool, dwindle_runtime::Error> {
        self.matcher.consume_token(token).map_err(failed)?;
        Ok(self.matcher.is_stopped())
    }
}

#[cfg(test)]
mod tests;
