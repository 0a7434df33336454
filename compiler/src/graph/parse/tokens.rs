//! Splits the text form of a graph into tokens with their places.

use super::super::print::is_word_byte;
use super::ParseError;

/// A token; names are without their sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'t> {
    /// `prefill`, `matmul`, `model.norm.weight`, `1e-6`.
    Word(&'t str),
    /// `%hidden.3`, `%gate#2`.
    Value(&'t str),
    /// `@0`.
    Rope(&'t str),
    /// Anything else, each character for itself.
    Punctuation(char),
    /// After the last.
    End,
}

/// A token where it stands.
#[derive(Clone, Copy, Debug)]
pub struct Place<'t> {
    /// What stands there.
    pub token: Token<'t>,
    line: usize,
    column: usize,
}

impl Place<'_> {
    /// This is wrong here.
    pub fn error(&self, why: impl Into<String>) -> ParseError {
        ParseError { line: self.line, column: self.column, why: why.into() }
    }

    /// Something else should stand here.
    pub fn expected(&self, what: &str) -> ParseError {
        let found = match self.token {
            Token::Word(word) => format!("`{word}`"),
            Token::Value(name) => format!("`%{name}`"),
            Token::Rope(name) => format!("`@{name}`"),
            Token::Punctuation(c) => format!("`{}`", c.escape_debug()),
            Token::End => "the end".to_owned(),
        };
        self.error(format!("expected {what}, found {found}"))
    }
}

/// Reads tokens one after the other.
#[derive(Debug)]
pub struct Tokens<'t> {
    text: &'t str,
    at: usize,
    line: usize,
    line_start: usize,
    last: Place<'t>,
}

impl<'t> Tokens<'t> {
    /// At the beginning of a text.
    pub fn new(text: &'t str) -> Self {
        Tokens { text, at: 0, line: 1, line_start: 0, last: Place { token: Token::End, line: 1, column: 1 } }
    }

    /// The token read last.
    pub fn place(&self) -> Place<'t> {
        self.last
    }

    /// Reads a token.
    pub fn next(&mut self) -> Result<Place<'t>, ParseError> {
        self.skip();
        let (start, column) = (self.at, self.at - self.line_start + 1);
        let rest = &self.text[start..];
        let place = |token| Place { token, line: self.line, column };
        let (token, length) = match rest.chars().next() {
            None => (Token::End, 0),
            Some(sign @ ('%' | '@')) => {
                let is_name = |b: &u8| is_word_byte(*b) || (sign == '%' && *b == b'#');
                let length = rest.as_bytes()[1..].iter().take_while(|b| is_name(b)).count();
                if length == 0 {
                    return Err(place(Token::Punctuation(sign)).error(format!("`{sign}` without a name")));
                }
                let name = &rest[1..=length];
                (if sign == '%' { Token::Value(name) } else { Token::Rope(name) }, length + 1)
            }
            Some(c) if c.is_ascii() && is_word_byte(c as u8) => {
                let length = rest.bytes().take_while(|&b| is_word_byte(b)).count();
                (Token::Word(&rest[..length]), length)
            }
            Some(c) => (Token::Punctuation(c), c.len_utf8()),
        };
        self.last = place(token);
        self.at += length;
        Ok(self.last)
    }

    /// The next token, not yet read.
    pub fn peek(&mut self) -> Result<Place<'t>, ParseError> {
        let (at, line, line_start, last) = (self.at, self.line, self.line_start, self.last);
        let place = self.next()?;
        (self.at, self.line, self.line_start, self.last) = (at, line, line_start, last);
        Ok(place)
    }

    /// Reads this character if it comes next.
    pub fn accept(&mut self, punctuation: char) -> Result<bool, ParseError> {
        let found = self.peek()?.token == Token::Punctuation(punctuation);
        if found {
            self.next()?;
        }
        Ok(found)
    }

    /// Reads this character.
    pub fn punctuation(&mut self, punctuation: char) -> Result<(), ParseError> {
        let place = self.next()?;
        match place.token == Token::Punctuation(punctuation) {
            true => Ok(()),
            false => Err(place.expected(&format!("`{punctuation}`"))),
        }
    }

    /// Reads this word.
    pub fn keyword(&mut self, keyword: &str) -> Result<Place<'t>, ParseError> {
        let place = self.next()?;
        if place.token == Token::Word(keyword) { Ok(place) } else { Err(place.expected(&format!("`{keyword}`"))) }
    }

    /// Reads any word.
    pub fn word(&mut self, what: &str) -> Result<&'t str, ParseError> {
        let place = self.next()?;
        if let Token::Word(word) = place.token { Ok(word) } else { Err(place.expected(what)) }
    }

    /// Reads a number.
    pub fn number<N: std::str::FromStr>(&mut self, what: &str) -> Result<N, ParseError> {
        self.word(what)?.parse().map_err(|_| self.last.expected(what))
    }

    fn skip(&mut self) {
        let bytes = self.text.as_bytes();
        while let Some(&byte) = bytes.get(self.at) {
            match byte {
                b'\n' => {
                    self.at += 1;
                    self.line += 1;
                    self.line_start = self.at;
                }
                b' ' | b'\t' | b'\r' => self.at += 1,
                b'/' if bytes.get(self.at + 1) == Some(&b'/') => {
                    self.at += bytes[self.at..].iter().take_while(|&&b| b != b'\n').count();
                }
                _ => return,
            }
        }
    }
}
