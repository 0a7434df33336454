//! The token that pairs one device: random, spent once, valid for some minutes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use subtle::ConstantTimeEq;

/// How long a token is valid.
const LIFE: Duration = Duration::from_secs(15 * 60);
/// Letters that nobody confuses when typing them.
const LETTERS: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz023456789";
/// 80 bits: nobody guesses one in its fifteen minutes.
const LENGTH: usize = 16;

/// A token.
pub struct Token {
    text: String,
    since: Instant,
    spent: bool,
}

impl Token {
    /// A new one.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new() -> Result<Token> {
        let letter = |byte: u8| char::from(LETTERS[usize::from(byte % 32)]);
        let text = random::<LENGTH>()?.into_iter().map(letter).collect();
        Ok(Token { text, since: Instant::now(), spent: false })
    }

    /// Its letters.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it still pairs a device.
    pub fn is_fresh(&self) -> bool {
        !self.spent && self.since.elapsed() < LIFE
    }

    /// Spends it; `false` where it is another one, or was spent already.
    pub fn spend(&mut self, given: &str) -> bool {
        let given = given.trim().to_ascii_lowercase();
        let is_same: bool = self.text.as_bytes().ct_eq(given.as_bytes()).into();
        let spends = self.is_fresh() && is_same;
        self.spent |= spends;
        spends
    }
}

/// Random bytes from the system.
///
/// # Errors
/// It has none.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).context("the system has no random numbers")?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_spent_once() {
        let mut token = Token::new().unwrap();
        let text = token.text().to_owned();
        assert_eq!(text.len(), LENGTH);
        assert_ne!(text, Token::new().unwrap().text());
        assert!(!token.spend("") && !token.spend(&text[1..]) && !token.spend(&format!("{text}a")));
        assert!(token.is_fresh());
        // Typed by hand.
        assert!(token.spend(&format!(" {} ", text.to_uppercase())));
        assert!(!token.spend(&text) && !token.is_fresh());
    }

    #[test]
    fn an_old_token_pairs_nobody() {
        let mut token = Token::new().unwrap();
        let text = token.text().to_owned();
        let Some(since) = Instant::now().checked_sub(LIFE) else { return };
        token.since = since;
        assert!(!token.spend(&text));
    }
}
