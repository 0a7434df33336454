//! SentencePiece's `tokenizer.model` (Kudo and Richardson 2018, arXiv 1808.06226): BPE and unigram models.
//!
//! The result encodes as SentencePiece does, by the file's own settings (transformers' `convert_slow_tokenizer.py`,
//! `build_tokenizer_from_spm_proto`): the table of characters, spaces that are removed, a space put before the text, merges in
//! the order of the pieces' scores, and user-defined pieces, which are never merged or cut.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::added::{AddedToken, Beside};
use super::byte_level::text;
use super::document::{Bpe, Document, Steps, Unigram, around};
use super::model_proto::{Algorithm, Kind, ModelProto, Piece};
use super::{Attempt, MAX_BYTES, Whole, class};
use crate::checkpoint::json;
use crate::error::Error;

pub const FILE: &str = "tokenizer.model";

/// Stands for a space in pieces.
const SPACE: &str = "▁";

/// Makes a tokenizer of the file in `directory`, or says why it cannot be.
pub fn read(directory: &Path, config: &Map<String, Value>, beside: &Beside) -> Attempt {
    let path = directory.join(FILE);
    let bytes = json::read_bytes(&path, MAX_BYTES)?;
    if let Some(reason) = other_format(&bytes) {
        return Ok(Err(reason.to_owned()));
    }
    let mut model = ModelProto::parse(&bytes).map_err(|reason| {
        Error::json(&path, format!("not a SentencePiece model: {reason}; download the file again"))
    })?;
    drop(bytes);
    if let Some(reason) = unsupported(&model) {
        return Ok(Err(reason));
    }
    rename(&mut model.pieces, beside);
    let mut seen = HashSet::new();
    if let Some(twice) = model.pieces.iter().find(|piece| !seen.insert(piece.text.as_str())) {
        return Ok(Err(format!("two pieces of {FILE} are {:?}", twice.text)));
    }
    let steps = steps(&model, config);
    let own = own_tokens(&model);
    let named = |id: Option<u64>| id.map(|id| model.pieces[id as usize].text.clone());
    let (unk, bos, eos) = (named(model.unk), named(model.bos), named(model.eos));
    let mut document = match model.algorithm {
        Algorithm::Unigram => {
            let scores = scores(&model.pieces);
            let vocab = model.pieces.into_iter().map(|piece| piece.text).zip(scores).collect();
            Document::unigram(Unigram { unk_id: model.unk, vocab, byte_fallback: model.byte_fallback }, steps)
        }
        _ => {
            let merges = merges(&model.pieces);
            let ignore_merges = model.pieces.iter().any(|piece| piece.kind == Kind::UserDefined);
            let vocab = (0..).zip(model.pieces).map(|(id, piece)| (piece.text, id)).collect();
            let (unk_token, byte_fallback) = (unk.clone(), model.byte_fallback);
            let bpe = Bpe { unk_token, fuse_unk: true, byte_fallback, ignore_merges, vocab, merges };
            Document::bpe(bpe, steps)
        }
    };
    document.add_own(own);
    let (_, notes) = document.add(beside);
    let mut extra = Map::new();
    for (key, token) in [("unk_token", &unk), ("bos_token", &bos), ("eos_token", &eos)] {
        extra.extend(token.as_deref().map(|token| (key.to_owned(), Value::from(token))));
    }
    let flag = |key: &str, default: bool| config.get(key).and_then(Value::as_bool).unwrap_or(default);
    let end = |key: &str, adds: bool| {
        let token = config.get(key).filter(|token| !token.is_null()).or(extra.get(key)).and_then(text);
        token.filter(|_| adds).and_then(|token| Some((token, document.number(token)?)))
    };
    let begins = end("bos_token", flag("add_bos_token", true));
    let ends = end("eos_token", flag("add_eos_token", false));
    if begins.is_some() || ends.is_some() {
        let processor = around(begins, ends);
        document.set_post_processor(processor);
    }
    Ok(Ok(Whole { document, config: extra, notes }))
}

/// Why a file of this name is not SentencePiece's: Llama 3's and others' are lists of bytes in base64, each with a number.
fn other_format(bytes: &[u8]) -> Option<&'static str> {
    let line = bytes.split(|byte| *byte == b'\n').next()?;
    let (left, right) = line.split_at(line.iter().position(|byte| *byte == b' ')?);
    let base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=".contains(byte);
    let is_list =
        !left.is_empty() && left.iter().all(base64) && right.len() > 1 && right[1..].iter().all(u8::is_ascii_digit);
    is_list.then_some("tokenizer.model is a list of tiktoken's, which does not tell how text is split")
}

/// What of a model has no equal in `tokenizer.json`.
fn unsupported(model: &ModelProto) -> Option<String> {
    let reason = match model {
        ModelProto { algorithm: Algorithm::Word | Algorithm::Char, .. } => "is a model of words or characters",
        ModelProto { whitespace_as_suffix: true, .. } => "puts spaces behind words",
        ModelProto { escape_whitespaces: false, .. } => "does not mark spaces",
        ModelProto { algorithm: Algorithm::Unigram, unk: None, .. } => "has no unknown token",
        _ => return None,
    };
    Some(format!("{FILE} {reason}, which is not implemented"))
}

/// Gives pieces the names that `added_tokens_decoder` has for their numbers: placeholders that a fine-tuning took.
fn rename(pieces: &mut [Piece], beside: &Beside) {
    let kept: HashSet<String> = (0..)
        .zip(pieces.iter())
        .filter(|(id, _)| beside.numbered(*id).is_none())
        .map(|(_, piece)| piece.text.clone())
        .collect();
    for (id, piece) in (0..).zip(pieces) {
        if let Some(token) = beside.numbered(id).filter(|token| !kept.contains(&token.content)) {
            piece.text.clone_from(&token.content);
        }
    }
}

/// Tokens that are never found in text as pieces: control tokens and the unknown one. User-defined pieces stay pieces.
fn own_tokens(model: &ModelProto) -> Vec<AddedToken> {
    let is_own = |piece: &&Piece| matches!(piece.kind, Kind::Control | Kind::Unknown);
    model.pieces.iter().filter(is_own).map(|piece| AddedToken::special(&piece.text)).collect()
}

/// Scores of a unigram model's pieces. Those that are never found in text as they are written, like `<0x41>`, get one so low that
/// any other pieces are likelier.
fn scores(pieces: &[Piece]) -> Vec<f64> {
    let is_found = |piece: &&Piece| matches!(piece.kind, Kind::Normal | Kind::UserDefined);
    let lowest = pieces.iter().filter(is_found).map(|piece| f64::from(piece.score)).fold(0.0, f64::min);
    let score = |piece: &Piece| if is_found(&piece) { f64::from(piece.score) } else { lowest - 1000.0 };
    pieces.iter().map(score).collect()
}

/// Each way of cutting a normal piece in two others, those of the highest score first.
fn merges(pieces: &[Piece]) -> Vec<(String, String)> {
    let normal = || pieces.iter().enumerate().filter(|(_, piece)| piece.kind == Kind::Normal);
    let ids: HashMap<&str, usize> = normal().map(|(id, piece)| (piece.text.as_str(), id)).collect();
    let mut merges = Vec::new();
    for (id, piece) in normal() {
        for (cut, _) in piece.text.char_indices().skip(1) {
            let (left, right) = piece.text.split_at(cut);
            if ids.contains_key(left) && ids.contains_key(right) {
                merges.push((id, left, right));
            }
        }
    }
    let score = |id: usize| pieces[id].score;
    merges.sort_by(|a, b| score(b.0).total_cmp(&score(a.0)).then_with(|| a.cmp(b)));
    merges.into_iter().map(|(_, left, right)| (left.to_owned(), right.to_owned())).collect()
}

/// What is done before and after the pieces.
fn steps(model: &ModelProto, config: &Map<String, Value>) -> Steps {
    let replace = |pattern: Value, content: &str| json!({"type": "Replace", "pattern": pattern, "content": content});
    let regex = |pattern: &str| json!({"Regex": pattern});
    let string = |pattern: &str| json!({"String": pattern});
    // Since transformers 4.34 only the text's beginning gets a space, not what follows a special token.
    let legacy = config.get("legacy").and_then(Value::as_bool).unwrap_or(class(config) != Some("LlamaTokenizer"));
    let prefixed = config.get("add_prefix_space").and_then(Value::as_bool).unwrap_or(model.add_dummy_prefix);

    let mut normalizers = Vec::new();
    if !model.charsmap.is_empty() {
        normalizers.push(json!({"type": "Precompiled", "precompiled_charsmap": STANDARD.encode(&model.charsmap)}));
    }
    if model.remove_extra_whitespaces {
        normalizers.push(replace(regex(r"\A +| +\z"), ""));
        normalizers.push(replace(regex(" {2,}"), " "));
    }
    normalizers.push(replace(string(" "), SPACE));
    if prefixed && legacy {
        // The step that puts a space before the text leaves out texts that begin with one.
        normalizers.push(replace(regex(r"\A▁"), "▁▁"));
    }

    let mut splits = Vec::new();
    if prefixed {
        let scheme = if legacy { "always" } else { "first" };
        splits.push(json!({"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": false}));
    }
    let mut own: Vec<&str> = model.pieces.iter().filter(|p| p.kind == Kind::UserDefined).map(|p| &*p.text).collect();
    if !own.is_empty() {
        own.sort_by_key(|text| std::cmp::Reverse(text.chars().count()));
        let pattern = own.into_iter().map(escaped).collect::<Vec<_>>().join("|");
        splits.push(json!({"type": "Split", "pattern": regex(&pattern), "behavior": "Isolated", "invert": false}));
    }

    if model.byte_fallback && matches!(model.algorithm, Algorithm::Unigram) {
        // A byte's piece is not found in text that spells it.
        let pattern = regex("<(?=0x[0-9A-F]{2}>)");
        splits.push(json!({"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false}));
    }

    let mut decoders = vec![replace(string(SPACE), " ")];
    if model.byte_fallback {
        decoders.push(json!({"type": "ByteFallback"}));
    }
    decoders.push(json!({"type": "Fuse"}));
    if prefixed {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let pre_tokenizer = match splits.is_empty() {
        true => Value::Null,
        false => json!({"type": "Sequence", "pretokenizers": splits}),
    };
    Steps {
        normalizer: json!({"type": "Sequence", "normalizers": normalizers}),
        pre_tokenizer,
        post_processor: Value::Null,
        decoder: json!({"type": "Sequence", "decoders": decoders}),
    }
}

/// A text as a regular expression that finds it.
fn escaped(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        // No others: `\<` is where a word begins.
        if r"\.+*?()|[]{}^$#&-~".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}
