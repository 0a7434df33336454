//! SentencePiece's model file: the few fields of its protocol buffer that a tokenizer needs.
//!
//! Numbers of fields and their defaults are those of `sentencepiece_model.proto`; the encoding is that of protocol buffers
//! (<https://protobuf.dev/programming-guides/encoding/>). Lengths are checked against what is left before anything is taken.

/// Pieces of the largest model that is read; published ones have at most 300 000.
const MAX_PIECES: usize = 1 << 22;

/// What a piece is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

/// A piece of text.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    pub text: String,
    pub score: f32,
    pub kind: Kind,
}

/// How a model was trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Unigram,
    Bpe,
    Word,
    Char,
}

/// A model file.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelProto {
    pub pieces: Vec<Piece>,
    pub algorithm: Algorithm,
    pub byte_fallback: bool,
    pub whitespace_as_suffix: bool,
    /// Numbers of the unknown token, of beginning and end; `None` where they are switched off.
    pub unk: Option<u64>,
    pub bos: Option<u64>,
    pub eos: Option<u64>,
    pub charsmap: Vec<u8>,
    pub add_dummy_prefix: bool,
    pub remove_extra_whitespaces: bool,
    pub escape_whitespaces: bool,
}

impl ModelProto {
    /// Reads a file's bytes.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut model = ModelProto {
            pieces: Vec::new(),
            algorithm: Algorithm::Unigram,
            byte_fallback: false,
            whitespace_as_suffix: false,
            unk: Some(0),
            bos: Some(1),
            eos: Some(2),
            charsmap: Vec::new(),
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            escape_whitespaces: true,
        };
        let mut message = Message(bytes);
        while let Some((field, value)) = message.next()? {
            match (field, value) {
                (1, Field::Bytes(piece)) => {
                    if model.pieces.len() == MAX_PIECES {
                        return Err(format!("it has more than {MAX_PIECES} pieces"));
                    }
                    model.pieces.push(Piece::parse(piece)?);
                }
                (2, Field::Bytes(trainer)) => model.trainer(trainer)?,
                (3, Field::Bytes(normalizer)) => model.normalizer(normalizer)?,
                _ => {}
            }
        }
        if model.pieces.is_empty() {
            return Err("it has no pieces".to_owned());
        }
        let count = model.pieces.len() as u64;
        for id in [&mut model.unk, &mut model.bos, &mut model.eos] {
            *id = id.filter(|id| *id < count);
        }
        Ok(model)
    }

    fn trainer(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut message = Message(bytes);
        // Negative numbers are written as large ones.
        let id = |number: u64| Some(number).filter(|number| *number <= i32::MAX as u64);
        while let Some((field, value)) = message.next()? {
            match (field, value) {
                (3, Field::Number(kind)) => {
                    self.algorithm = match kind {
                        1 => Algorithm::Unigram,
                        2 => Algorithm::Bpe,
                        3 => Algorithm::Word,
                        4 => Algorithm::Char,
                        other => return Err(format!("its algorithm, number {other}, is not known")),
                    }
                }
                (24, Field::Number(flag)) => self.whitespace_as_suffix = flag != 0,
                (35, Field::Number(flag)) => self.byte_fallback = flag != 0,
                (40, Field::Number(number)) => self.unk = id(number),
                (41, Field::Number(number)) => self.bos = id(number),
                (42, Field::Number(number)) => self.eos = id(number),
                _ => {}
            }
        }
        Ok(())
    }

    fn normalizer(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut message = Message(bytes);
        while let Some((field, value)) = message.next()? {
            match (field, value) {
                (2, Field::Bytes(table)) => self.charsmap = table.to_vec(),
                (3, Field::Number(flag)) => self.add_dummy_prefix = flag != 0,
                (4, Field::Number(flag)) => self.remove_extra_whitespaces = flag != 0,
                (5, Field::Number(flag)) => self.escape_whitespaces = flag != 0,
                _ => {}
            }
        }
        Ok(())
    }
}

impl Piece {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut piece = Piece { text: String::new(), score: 0.0, kind: Kind::Normal };
        let mut message = Message(bytes);
        while let Some((field, value)) = message.next()? {
            match (field, value) {
                (1, Field::Bytes(text)) => {
                    let text = std::str::from_utf8(text).map_err(|_| "a piece is not UTF-8".to_owned())?;
                    piece.text = text.to_owned();
                }
                (2, Field::Four(score)) => piece.score = f32::from_le_bytes(score),
                (3, Field::Number(kind)) => {
                    piece.kind = match kind {
                        1 => Kind::Normal,
                        2 => Kind::Unknown,
                        3 => Kind::Control,
                        4 => Kind::UserDefined,
                        5 => Kind::Unused,
                        6 => Kind::Byte,
                        other => return Err(format!("a piece is of the kind {other}, which is not known")),
                    }
                }
                _ => {}
            }
        }
        match piece.text.is_empty() || !piece.score.is_finite() {
            true => Err("a piece has no text, or a score that is not a number".to_owned()),
            false => Ok(piece),
        }
    }
}

/// A value of a field.
enum Field<'b> {
    Number(u64),
    Four([u8; 4]),
    Eight,
    Bytes(&'b [u8]),
}

/// What is left of a message.
struct Message<'b>(&'b [u8]);

impl<'b> Message<'b> {
    /// The next field's number and value; `None` at the end.
    fn next(&mut self) -> Result<Option<(u64, Field<'b>)>, String> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.number()?;
        let value = match key & 7 {
            0 => Field::Number(self.number()?),
            1 => {
                self.take(8)?;
                Field::Eight
            }
            2 => {
                let length = usize::try_from(self.number()?).map_err(|_| cut())?;
                Field::Bytes(self.take(length)?)
            }
            5 => Field::Four(self.take(4)?.try_into().map_err(|_| cut())?),
            other => return Err(format!("a field of it is encoded as {other}, which is not known")),
        };
        Ok(Some((key >> 3, value)))
    }

    /// A number of up to ten bytes, seven bits each, the lowest first.
    fn number(&mut self) -> Result<u64, String> {
        let mut number = 0;
        for shift in (0..70).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err("a number of it has more than ten bytes".to_owned())
    }

    fn take(&mut self, length: usize) -> Result<&'b [u8], String> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(cut)?;
        self.0 = rest;
        Ok(taken)
    }
}

fn cut() -> String {
    "it ends within a field".to_owned()
}
