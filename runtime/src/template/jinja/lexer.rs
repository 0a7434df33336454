//! The text of a template as tokens, with Jinja's `trim_blocks` and `lstrip_blocks`, and its whitespace control.

use std::sync::Arc;

use super::fault::{Fault, Result};
use super::text::is_space;

/// Longest name, so that looking one up takes bounded time.
const MOST_NAME_BYTES: usize = 256;

/// A token.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// Text outside of tags.
    Text(Arc<str>),
    BlockBegin,
    BlockEnd,
    PrintBegin,
    PrintEnd,
    Name(Arc<str>),
    Str(String),
    Int(i64),
    Float(f64),
    Op(&'static str),
    End,
}

/// Operators, those of two letters first.
const OPERATORS: [&str; 26] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".",
    ":", "|", ",", ";",
];

/// The tokens of a template, each with its line.
///
/// # Errors
/// The line and the reason.
pub(super) fn tokens(source: &str) -> std::result::Result<Vec<(Token, u32)>, (u32, Fault)> {
    let mut source = source.replace("\r\n", "\n").replace('\r', "\n");
    if source.ends_with('\n') {
        source.pop();
    }
    let mut lexer = Lexer { source: &source, at: 0, line: 1, tokens: Vec::new() };
    lexer.template().map_err(|fault| (lexer.line, fault))?;
    let line = lexer.line;
    lexer.tokens.push((Token::End, line));
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    line: u32,
    tokens: Vec<(Token, u32)>,
}

/// What a tag is.
#[derive(Clone, Copy, PartialEq)]
enum Tag {
    Block,
    Print,
    Comment,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    /// Goes on by some bytes.
    fn skip(&mut self, bytes: usize) {
        let passed = &self.source[self.at..self.at + bytes];
        self.line += passed.bytes().filter(|&byte| byte == b'\n').count() as u32;
        self.at += bytes;
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.skip(rest.len() - rest.trim_start_matches(is_space).len());
    }

    fn push(&mut self, token: Token) {
        self.tokens.push((token, self.line));
    }

    fn push_text(&mut self, text: &str) {
        if !text.is_empty() {
            self.push(Token::Text(text.into()));
        }
    }

    fn template(&mut self) -> Result<()> {
        // Whether what comes next stands at the beginning of a line.
        let mut line_starts = true;
        loop {
            let rest = self.rest();
            let Some((start, tag)) = next_tag(rest) else {
                self.push_text(rest);
                self.skip(rest.len());
                return Ok(());
            };
            let sign = rest[start + 2..].chars().next().filter(|c| matches!(c, '-' | '+'));
            self.push_text(before_tag(&rest[..start], sign, tag, line_starts));
            self.skip(start + 2 + usize::from(sign.is_some()));
            match tag {
                Tag::Comment => self.comment()?,
                Tag::Block if self.raw_begin() => {
                    line_starts = self.source[..self.at].ends_with('\n');
                    self.raw_body(line_starts)?;
                }
                Tag::Block => {
                    self.push(Token::BlockBegin);
                    self.inside(Tag::Block)?;
                }
                Tag::Print => {
                    self.push(Token::PrintBegin);
                    self.inside(Tag::Print)?;
                }
            }
            line_starts = self.source[..self.at].ends_with('\n');
        }
    }

    fn comment(&mut self) -> Result<()> {
        let rest = self.rest();
        let Some(end) = rest.find("#}") else { return Fault::failed("Missing end of comment tag") };
        let sign = rest[..end].chars().next_back();
        self.skip(end + 2);
        self.after_block(sign);
        Ok(())
    }

    /// What the end of a block or comment takes with it.
    fn after_block(&mut self, sign: Option<char>) {
        match sign {
            Some('-') => self.skip_space(),
            Some('+') => {}
            _ if self.rest().starts_with('\n') => self.skip(1),
            _ => {}
        }
    }

    /// Goes past the rest of `{% raw %}`, if it is one.
    fn raw_begin(&mut self) -> bool {
        let rest = self.rest();
        let Some(inner) = rest.trim_start_matches(is_space).strip_prefix("raw") else { return false };
        let inner = inner.trim_start_matches(is_space);
        let after = match inner.strip_prefix("-%}") {
            Some(after) => after.trim_start_matches(is_space),
            None => match inner.strip_prefix("%}") {
                Some(after) => after,
                None => return false,
            },
        };
        self.skip(rest.len() - after.len());
        true
    }

    fn raw_body(&mut self, line_starts: bool) -> Result<()> {
        let rest = self.rest();
        let mut from = 0;
        while let Some(found) = rest[from..].find("{%") {
            let start = from + found;
            let mut inner = &rest[start + 2..];
            let sign = inner.chars().next().filter(|c| matches!(c, '-' | '+'));
            inner = &inner[usize::from(sign.is_some())..];
            let inner = inner.trim_start_matches(is_space).strip_prefix("endraw");
            if let Some(inner) = inner.map(|inner| inner.trim_start_matches(is_space)) {
                let end_sign = inner.chars().next().filter(|c| matches!(c, '-' | '+'));
                if let Some(after) = inner[usize::from(end_sign.is_some())..].strip_prefix("%}") {
                    self.push_text(before_tag(&rest[..start], sign, Tag::Block, line_starts));
                    self.skip(rest.len() - after.len());
                    self.after_block(end_sign);
                    return Ok(());
                }
            }
            from = start + 2;
        }
        Fault::failed("Missing end of raw directive")
    }

    /// What stands in a tag, up to and with its end.
    fn inside(&mut self, tag: Tag) -> Result<()> {
        // Brackets that wait for their end; a tag cannot end within.
        let mut open: Vec<&'static str> = Vec::new();
        loop {
            if open.is_empty() && self.end_of(tag) {
                return Ok(());
            }
            let rest = self.rest();
            let Some(first) = rest.chars().next() else { return Fault::failed("unexpected end of template") };
            if is_space(first) {
                self.skip_space();
            } else if first.is_ascii_digit() {
                self.number()?;
            } else if first.is_alphanumeric() || first == '_' {
                let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                if length > MOST_NAME_BYTES {
                    return Fault::failed(format!("a name is longer than {MOST_NAME_BYTES} bytes"));
                }
                self.push(Token::Name(rest[..length].into()));
                self.skip(length);
            } else if first == '"' || first == '\'' {
                self.string(first)?;
            } else if let Some(&operator) = OPERATORS.iter().find(|operator| rest.starts_with(**operator)) {
                match operator {
                    "{" => open.push("}"),
                    "(" => open.push(")"),
                    "[" => open.push("]"),
                    "}" | ")" | "]" => match open.pop() {
                        Some(expected) if expected == operator => {}
                        Some(expected) => {
                            return Fault::failed(format!("unexpected '{operator}', expected '{expected}'"));
                        }
                        None => return Fault::failed(format!("unexpected '{operator}'")),
                    },
                    _ => {}
                }
                self.push(Token::Op(operator));
                self.skip(operator.len());
            } else {
                return Fault::failed(format!("unexpected char {first:?}"));
            }
        }
    }

    /// Goes past the end of the tag, if it is here.
    fn end_of(&mut self, tag: Tag) -> bool {
        let rest = self.rest();
        if tag == Tag::Print {
            if !rest.starts_with("}}") && !rest.starts_with("-}}") {
                return false;
            }
            self.push(Token::PrintEnd);
            let strip = rest.starts_with('-');
            self.skip(2 + usize::from(strip));
            if strip {
                self.skip_space();
            }
            return true;
        }
        let sign = rest.chars().next().filter(|c| matches!(c, '-' | '+'));
        if !rest[usize::from(sign.is_some())..].starts_with("%}") {
            return false;
        }
        self.push(Token::BlockEnd);
        self.skip(2 + usize::from(sign.is_some()));
        self.after_block(sign);
        true
    }

    fn number(&mut self) -> Result<()> {
        let rest = self.rest();
        let radix = match rest.get(..2).map(str::to_ascii_lowercase).as_deref() {
            Some("0x") => 16,
            Some("0o") => 8,
            Some("0b") => 2,
            _ => 10,
        };
        let too_big = || Fault::Failed("an integer beyond 64 bits".to_owned());
        if radix != 10 {
            let length = rest[2..].find(|c: char| !c.is_digit(radix) && c != '_').map_or(rest.len(), |end| end + 2);
            let digits = rest[2..length].replace('_', "");
            if digits.is_empty() {
                return Fault::failed("a number without digits");
            }
            self.push(Token::Int(i64::from_str_radix(&digits, radix).map_err(|_| too_big())?));
            self.skip(length);
            return Ok(());
        }
        let digits = |from: usize| {
            let text = &rest[from..];
            from + text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len())
        };
        let digit_at = |at: usize| rest.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
        let whole = digits(0);
        let mut end = whole;
        // `a.0.1` asks for items.
        let may_be_float = !self.source[..self.at].ends_with('.');
        if may_be_float && rest[end..].starts_with('.') && digit_at(end + 1) {
            end = digits(end + 1);
        }
        if may_be_float && rest[end..].starts_with(['e', 'E']) {
            let signed = end + 1 + usize::from(rest[end + 1..].starts_with(['+', '-']));
            if digit_at(signed) {
                end = digits(signed);
            }
        }
        let text = rest[..end].replace('_', "");
        let token = match end > whole {
            true => Token::Float(text.parse().map_err(|_| Fault::Failed(format!("{text} is not a number")))?),
            false => Token::Int(text.parse().map_err(|_| too_big())?),
        };
        self.push(token);
        self.skip(end);
        Ok(())
    }

    /// A string, with Python's escapes.
    fn string(&mut self, quote: char) -> Result<()> {
        let rest = self.rest();
        let mut text = String::new();
        let mut letters = rest.char_indices().skip(1);
        while let Some((at, letter)) = letters.next() {
            if letter == quote {
                self.push(Token::Str(text));
                self.skip(at + 1);
                return Ok(());
            }
            if letter != '\\' {
                text.push(letter);
                continue;
            }
            let Some((at, escape)) = letters.next() else { break };
            let (radix, most) = match escape {
                'x' => (16, 2),
                'u' => (16, 4),
                'U' => (16, 8),
                '0'..='7' => (8, 3),
                _ => {
                    match escape {
                        '\n' => {}
                        '\\' | '\'' | '"' => text.push(escape),
                        'n' => text.push('\n'),
                        't' => text.push('\t'),
                        'r' => text.push('\r'),
                        'a' => text.push('\x07'),
                        'b' => text.push('\x08'),
                        'f' => text.push('\x0c'),
                        'v' => text.push('\x0b'),
                        'N' => return Fault::failed("named characters (\\N) are not supported"),
                        other => text.extend(['\\', other]),
                    }
                    continue;
                }
            };
            let from = if radix == 8 { at } else { at + 1 };
            let digits = &rest[from..];
            let length = digits.chars().take(most).take_while(|c| c.is_digit(radix)).count();
            if radix == 16 && length < most {
                return Fault::failed(format!("truncated \\{escape} escape"));
            }
            let code = u32::from_str_radix(&digits[..length], radix).unwrap_or(u32::MAX);
            let (letter, extra) = match (code, digits[length..].strip_prefix("\\u")) {
                // A pair of surrogates is one character.
                (0xd800..=0xdbff, Some(low)) => match low.get(..4).map(|low| u32::from_str_radix(low, 16)) {
                    Some(Ok(low @ 0xdc00..=0xdfff)) => {
                        (char::from_u32(0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00)), 6)
                    }
                    _ => (Some(char::REPLACEMENT_CHARACTER), 0),
                },
                (0xd800..=0xdfff, _) => (Some(char::REPLACEMENT_CHARACTER), 0),
                _ => (char::from_u32(code), 0),
            };
            let Some(letter) = letter else { return Fault::failed("illegal Unicode character") };
            text.push(letter);
            // The digits that follow the one or the letter already taken; all are ASCII.
            let taken = if radix == 8 { length - 1 } else { length };
            for _ in 0..taken + extra {
                letters.next();
            }
        }
        Fault::failed("a string does not end")
    }
}

/// Where the next tag begins, and what it is.
fn next_tag(text: &str) -> Option<(usize, Tag)> {
    let bytes = text.as_bytes();
    (0..bytes.len().saturating_sub(1)).filter(|&i| bytes[i] == b'{').find_map(|i| match bytes[i + 1] {
        b'%' => Some((i, Tag::Block)),
        b'{' => Some((i, Tag::Print)),
        b'#' => Some((i, Tag::Comment)),
        _ => None,
    })
}

/// The text before a tag, as far as the tag leaves it.
fn before_tag(text: &str, sign: Option<char>, tag: Tag, line_starts: bool) -> &str {
    match sign {
        Some('-') => text.trim_end_matches(is_space),
        None if tag != Tag::Print => {
            let line = text.rfind('\n').map_or(0, |end| end + 1);
            if (line > 0 || line_starts) && text[line..].chars().all(is_space) { &text[..line] } else { text }
        }
        _ => text,
    }
}
