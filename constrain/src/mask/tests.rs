//! Masks over a vocabulary of bytes and a few longer tokens.

use serde_json::{Value, json};

use super::*;
use crate::{Call, Repeat, Token};

const END: u32 = 300;

fn vocabulary() -> Vocabulary {
    let mut tokens: Vec<Token> = (0..=255).map(|byte| Token::Bytes(vec![byte])).collect();
    tokens.extend(["{\"", "\":", "true", "  ", "\"}", "<tool_call>"].map(|text| Token::Bytes(text.into())));
    tokens.resize(310, Token::Control);
    Vocabulary { tokens, ends: vec![END] }
}

/// Draws tokens with a preference, and gives the text.
fn drawn(grammar: &Grammar, mut prefer: impl FnMut(&[u8], u32) -> f32, most: usize) -> (String, bool) {
    let vocabulary = vocabulary();
    let mut mask = Constrainer::new(&vocabulary).unwrap().mask(grammar).unwrap();
    let mut text = Vec::new();
    for _ in 0..most {
        let mut logits: Vec<f32> = (0..310).map(|token| prefer(&text, token)).collect();
        mask.mask(&mut logits).unwrap();
        let best = (0..310u32).max_by(|a, b| logits[*a as usize].total_cmp(&logits[*b as usize])).unwrap();
        let done = mask.accept(best).unwrap();
        match &vocabulary.tokens[best as usize] {
            Token::Bytes(bytes) => text.extend(bytes),
            Token::Control => return (String::from_utf8(text).unwrap(), true),
        }
        if done {
            return (String::from_utf8(text).unwrap(), true);
        }
    }
    (String::from_utf8_lossy(&text).into_owned(), false)
}

/// A model that knows nothing: some fixed noise.
fn noise(text: &[u8], token: u32) -> f32 {
    let mut state = u64::from(token) ^ (text.len() as u64) << 20 ^ 0x9e37_79b9;
    for _ in 0..3 {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        state ^= state >> 29;
    }
    // Ends and closing marks are liked, so that answers end.
    let liked = if token == END || [b'}', b'"', b']'].contains(&u8::try_from(token).unwrap_or(0)) { 2.0 } else { 0.0 };
    (state >> 40) as f32 / (1 << 24) as f32 + liked
}

#[test]
fn answers_conform_to_their_schema() {
    let schema = json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "maxLength": 8 },
            "age": { "type": "integer", "minimum": 0, "maximum": 150 },
            "kind": { "enum": ["cat", "dog"] },
            "sizes": { "type": "array", "items": { "type": "number" }, "maxItems": 3 }
        },
        "required": ["name", "age", "kind"],
        "additionalProperties": false
    });
    let (text, ended) = drawn(&Grammar::JsonSchema(schema), noise, 400);
    assert!(ended, "{text}");
    let value: Value = serde_json::from_str(&text).unwrap();
    assert!(value["name"].as_str().unwrap().chars().count() <= 8, "{text}");
    assert!((0..=150).contains(&value["age"].as_i64().unwrap()), "{text}");
    assert!(["cat", "dog"].contains(&value["kind"].as_str().unwrap()), "{text}");
}

#[test]
fn any_object() {
    let (text, ended) = drawn(&Grammar::JsonObject, noise, 400);
    assert!(ended && serde_json::from_str::<Value>(&text).unwrap().is_object(), "{text}");
}

#[test]
fn white_space_is_bounded() {
    // A model that would write nothing but spaces.
    let spaces = |_: &[u8], token: u32| if token == 32 || token == 10 || token == 259 { 9.0 } else { 0.0 };
    let schema = json!({ "type": "object", "properties": { "a": { "type": "boolean" } }, "required": ["a"],
        "additionalProperties": false });
    let (text, ended) = drawn(&Grammar::JsonSchema(schema), spaces, 60);
    assert!(ended, "{text:?}");
    assert!(serde_json::from_str::<Value>(&text).is_ok(), "{text:?}");
}

#[test]
fn calls_are_written_in_the_syntax_that_was_given() {
    let call = |name: &str, arguments: Value| Call {
        before: format!("<tool_call>\n{{\"name\": \"{name}\", \"arguments\": "),
        arguments,
        after: "}\n</tool_call>".to_owned(),
    };
    let integer = json!({ "type": "object", "properties": { "n": { "type": "integer", "maximum": 9, "minimum": 0 } },
        "required": ["n"], "additionalProperties": false });
    let calls = vec![call("count", integer.clone()), call("stop \"now\"", integer)];
    for repeat in [Repeat::Once, Repeat::SeparatedBy("\n".to_owned())] {
        let (text, ended) = drawn(&Grammar::Calls { calls: calls.clone(), repeat }, noise, 600);
        let inner = text.split("<tool_call>").nth(1).unwrap().split("</tool_call>").next().unwrap();
        let value: Value = serde_json::from_str(inner).unwrap_or_else(|error| panic!("{error} in {inner:?}"));
        assert!(value["arguments"]["n"].is_i64(), "{text}");
        assert!(ended || text.len() > 500);
    }
}

#[test]
fn tokens_beside_the_grammar_are_refused() {
    let vocabulary = vocabulary();
    let mut mask = Constrainer::new(&vocabulary).unwrap().mask(&Grammar::JsonObject).unwrap();
    assert!(matches!(mask.accept(u32::from(b'x')), Err(dwindle_runtime::Error::Mask { .. })));
}

#[test]
fn untrusted_schemas_are_bounded() {
    let constrainer = Constrainer::new(&vocabulary()).unwrap();
    let refused = |schema: Value| constrainer.mask(&Grammar::JsonSchema(schema)).map(|_| ()).unwrap_err();
    let mut deep = json!({});
    for _ in 0..200 {
        deep = json!({ "properties": { "a": deep } });
    }
    assert!(matches!(refused(deep), Error::Depth { .. }));
    let wide: serde_json::Map<String, Value> = (0..20_000).map(|n| (format!("key {n}"), json!({}))).collect();
    assert!(matches!(refused(json!({ "properties": wide })), Error::Size { .. }));
    assert!(matches!(refused(json!([])), Error::Schema { .. }));
    assert!(matches!(refused(json!({ "type": "nonsense" })), Error::Schema { .. }));
    assert!(matches!(refused(json!({ "$ref": "#/nowhere" })), Error::Schema { .. }));
    let started = std::time::Instant::now();
    for pattern in ["(a{1,500}){1,500}{1,500}", "((((a*)*)*)*)*b{1,9999}", "(?=x)"] {
        // Whatever is said of it, it is said soon.
        let _ = constrainer.mask(&Grammar::JsonSchema(json!({ "type": "string", "pattern": pattern })));
    }
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

#[test]
fn a_model_must_be_able_to_end() {
    let vocabulary = Vocabulary { ends: vec![9_999], ..vocabulary() };
    assert_eq!(Constrainer::new(&vocabulary).unwrap_err(), Error::NoEnd);
}
