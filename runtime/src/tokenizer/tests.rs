//! Text to tokens and back, whole and in pieces, with tokenizers of each kind.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn demo(model: &str) -> Tokenizer {
    let path = format!("{}/../demo/{model}/tokenizer.json", env!("CARGO_MANIFEST_DIR"));
    Tokenizer::from_bytes(&std::fs::read(path).unwrap()).unwrap()
}

fn added(id: usize, content: &str, special: bool, extra: Value) -> Value {
    let mut token = json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": special});
    token.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    token
}

/// A tokenizer of these pieces, of all bytes, and of merges.
fn of_bytes(pieces: &[&str], merges: &[[&str; 2]], added_tokens: Vec<Value>, steps: Value) -> Tokenizer {
    let mut vocabulary: Vec<String> = vec!["<unk>".into()];
    vocabulary.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    vocabulary.extend(pieces.iter().map(|&piece| piece.to_owned()));
    vocabulary.extend(merges.iter().map(|pair| pair.concat()));
    let vocabulary: serde_json::Map<_, _> =
        vocabulary.into_iter().enumerate().map(|(i, text)| (text, i.into())).collect();
    let mut json = json!({
        "version": "1.0", "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
        "padding": null, "added_tokens": added_tokens, "normalizer": null, "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "vocab": vocabulary, "merges": merges},
    });
    json.as_object_mut().unwrap().extend(steps.as_object().unwrap().clone());
    Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap()
}

const PIECES: [&str; 14] = ["▁", "H", "i", "!", "y", "o", "u", "s", ">", "<", "/", "e", "n", "d"];
const MERGES: [[&str; 2]; 8] =
    [["H", "i"], ["▁", "Hi"], ["o", "u"], ["y", "ou"], ["▁", "you"], ["!", "▁"], ["<", "s"], ["▁", "▁"]];

fn controls() -> Vec<Value> {
    vec![
        added(1000, "<s>", true, json!({})),
        added(1001, "</s>", true, json!({"lstrip": true, "rstrip": true})),
        added(1002, "<end>", false, json!({})),
    ]
}

/// Words with metaspaces from a pre-tokenizer, and bytes, as some older tokenizers have them.
fn metaspace(scheme: &str) -> Tokenizer {
    let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": true});
    of_bytes(&PIECES, &MERGES, controls(), json!({"pre_tokenizer": metaspace}))
}

/// As SentencePiece's, without words: the whole text is one.
fn sentence_piece() -> Tokenizer {
    let normalizer = json!({"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]});
    of_bytes(&PIECES, &MERGES, controls(), json!({"normalizer": normalizer}))
}

/// With a decoder that knows no bytes.
fn without_fallback() -> Tokenizer {
    let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    of_bytes(&PIECES, &MERGES, controls(), json!({"decoder": metaspace, "pre_tokenizer": metaspace}))
}

fn all() -> Vec<(&'static str, Tokenizer)> {
    vec![
        ("gemma", demo("pocket-gemma")),
        ("llava", demo("pocket-llava")),
        ("metaspace", metaspace("always")),
        ("metaspace first", metaspace("first")),
        ("sentence piece", sentence_piece()),
        ("without fallback", without_fallback()),
    ]
}

#[track_caller]
fn stream(tokenizer: &Tokenizer, tokens: &[u32]) -> Vec<String> {
    let mut stream = TextStream::default();
    let mut pieces: Vec<String> = tokens.iter().map(|&token| stream.push(tokenizer, token).unwrap()).collect();
    pieces.push(stream.finish(tokenizer).unwrap());
    pieces
}

const TEXTS: [&str; 8] = [
    "Hello! My name is Ana.",
    "Grüße, naïve café",
    "👩‍👩‍👧‍👦 and 🏴‍☠️ and 漢字",
    " leading and trailing \n\n",
    "line\n\tline",
    "carré vert \"rot\"",
    "Hi  you! <end> </s> Hi",
    "",
];

#[test]
fn streams_give_the_text_of_the_whole() {
    for (name, tokenizer) in all() {
        for text in TEXTS {
            let tokens = tokenizer.encode(text, false).unwrap();
            let whole = tokenizer.inner.decode(&tokens, true).unwrap();
            let pieces = stream(&tokenizer, &tokens);
            assert_eq!(pieces.concat(), whole, "{name}: {text:?}");
            let known = !whole.contains(char::REPLACEMENT_CHARACTER);
            assert!(!known || pieces.iter().all(|piece| !piece.contains(char::REPLACEMENT_CHARACTER)));
        }
    }
}

fn byte(tokenizer: &Tokenizer, byte: u8) -> u32 {
    tokenizer.token(&format!("<0x{byte:02X}>")).unwrap()
}

#[test]
fn words_come_at_once_and_characters_when_complete() {
    let tokenizer = metaspace("always");
    let [hi, you, mark] = ["▁Hi", "▁you", "!"].map(|text| tokenizer.token(text).unwrap());
    let euro = [0xe2, 0x82, 0xac].map(|b| byte(&tokenizer, b));
    let pieces = stream(&tokenizer, &[hi, you, euro[0], euro[1], euro[2], mark]);
    assert_eq!(pieces, ["Hi", " you", "", "", "€", "!", ""]);
    // A space at the very beginning is stripped, whatever token it comes from.
    let space = byte(&tokenizer, b' ');
    assert_eq!(stream(&tokenizer, &[space, space, hi]), ["", " ", " Hi", ""]);
}

#[test]
fn broken_characters_end_the_waiting() {
    let tokenizer = metaspace("always");
    let hi = tokenizer.token("▁Hi").unwrap();
    let bytes = |text: &[u8]| text.iter().map(|&b| byte(&tokenizer, b)).collect::<Vec<u32>>();
    assert_eq!(stream(&tokenizer, &[vec![hi], bytes(&[0xe2, 0x82])].concat()), ["Hi", "", "", "\u{fffd}\u{fffd}"]);
    assert!(stream(&tokenizer, &bytes(&[0xff; 100]))[..100].iter().all(|piece| piece == "\u{fffd}"));
    // A line break, the beginning of an emoji that never ends, and words.
    let broken = stream(
        &tokenizer,
        &[vec![hi], bytes(b"\n\xf0\x9f\x98"), vec![hi], bytes(b"\xf0\x9f\x98\x80"), vec![hi]].concat(),
    );
    assert_eq!(broken.concat(), "Hi\n\u{fffd}\u{fffd}\u{fffd} Hi😀 Hi");
    // One broken character does not break those beside it.
    assert_eq!(stream(&tokenizer, &bytes(b"a\xc3\xa9\xc3\xc3\xa9\x80b")).concat(), "aé\u{fffd}é\u{fffd}b");
    let tokenizer = demo("pocket-llava");
    let tokens = tokenizer.encode("\n😀", false).unwrap();
    let cut = &tokens[..tokens.len() - 1];
    let rest = tokenizer.encode("well", false).unwrap();
    assert_eq!(stream(&tokenizer, &[cut, &rest[..]].concat()).concat(), "\n\u{fffd}well");
}

/// What a run of bytes is as text: characters where they are whole; for each other byte U+FFFD, or for each beginning of a character.
fn lossy(bytes: &[u8], each_byte: bool) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text += chunk.valid();
        let count = if each_byte { chunk.invalid().len() } else { usize::from(!chunk.invalid().is_empty()) };
        text.extend(std::iter::repeat_n(char::REPLACEMENT_CHARACTER, count));
    }
    text
}

/// Bytes that are often characters, whole, cut or broken.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let whole = "[\n a-zé€😀]{0,3}".prop_map(String::into_bytes);
    let cut = ("[é€😀]", 1..4usize).prop_map(|(text, end)| text.as_bytes()[..end.min(text.len() - 1)].to_vec());
    let any = proptest::collection::vec(any::<u8>(), 0..4);
    proptest::collection::vec(prop_oneof![whole, cut, any], 0..8).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn byte_level_streams_lose_nothing(bytes in bytes()) {
        let tokenizer = demo("pocket-llava");
        let alphabet: std::collections::BTreeMap<Vec<u8>, u32> = (0..768u32)
            .filter_map(|token| Some((super::stream::bytes_of(&tokenizer.token_text(token)?), token)))
            .filter(|(bytes, _)| bytes.len() == 1)
            .collect();
        let tokens: Vec<u32> = bytes.iter().map(|&byte| alphabet[&vec![byte]]).collect();
        let text = stream(&tokenizer, &tokens).concat();
        prop_assert_eq!(&text, &String::from_utf8_lossy(&bytes));
        prop_assert_eq!(&text, &tokenizer.inner.decode(&tokens, true).unwrap());
    }

    #[test]
    fn byte_fallback_streams_lose_nothing(parts in proptest::collection::vec((bytes(), 0..5usize), 0..5)) {
        let tokenizer = sentence_piece();
        let words = ["▁Hi", "▁you", "!", "▁", "Hi"];
        let (mut tokens, mut expected) = (Vec::new(), String::new());
        for (bytes, word) in &parts {
            tokens.extend(bytes.iter().map(|&b| byte(&tokenizer, b)));
            expected += &lossy(bytes, true);
            tokens.push(tokenizer.token(words[*word]).unwrap());
            expected += &words[*word].replace('▁', " ");
        }
        let expected = expected.strip_prefix(' ').unwrap_or(&expected);
        let text = stream(&tokenizer, &tokens).concat();
        prop_assert_eq!(&text, expected);
        prop_assert_eq!(&text, &tokenizer.decode(&tokens).unwrap());
        if parts.iter().all(|(bytes, _)| std::str::from_utf8(bytes).is_ok()) {
            prop_assert_eq!(&text, &tokenizer.inner.decode(&tokens, true).unwrap());
        }
    }

    #[test]
    fn any_tokens_are_the_same_in_a_stream_and_whole(numbers in proptest::collection::vec(0..300u32, 0..30)) {
        let tokenizer = without_fallback();
        prop_assert_eq!(stream(&tokenizer, &numbers).concat(), tokenizer.inner.decode(&numbers, true).unwrap());
    }
}

/// Texts with everything that tokenizers look at.
fn texts() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "[ Hiyou!\né漢\t]{0,6}",
        Just("<s>".to_owned()),
        Just("</s>".to_owned()),
        Just("<end>".to_owned()),
        Just("<start_of_turn>user\n".to_owned()),
        Just("<|im_end|>".to_owned()),
        Just("<image>".to_owned()),
    ];
    proptest::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn own_steps_are_those_of_the_crate(text in texts()) {
        for (name, tokenizer) in all() {
            let expected = tokenizer.encode(&text, false).unwrap();
            prop_assert_eq!(tokenizer.encode_within("", &text, &[]).unwrap(), expected, "{}", name);
        }
    }

    #[test]
    fn behind_a_context_tokens_are_those_of_the_whole(context in texts(), text in texts()) {
        for (name, tokenizer) in all() {
            let whole = [context.as_str(), &text].concat();
            let encoding = tokenizer.inner.encode(whole.as_str(), false).unwrap();
            let border = context.len();
            let across = encoding.get_offsets().iter().any(|&(start, end)| start < border && border < end);
            if across || context.is_empty() {
                continue;
            }
            let expected: Vec<u32> = encoding.get_ids().iter().zip(encoding.get_offsets())
                .filter(|(_, (start, end))| *start >= border && end > start).map(|(&id, _)| id).collect();
            let found = tokenizer.encode_within(&context, &text, &[]).unwrap();
            prop_assert_eq!(found, expected, "{}: {:?}", name, (&context, &text));
        }
    }

    #[test]
    fn literal_text_has_no_control_tokens(text in texts()) {
        for (name, tokenizer) in all() {
            let guard = tokenizer.controls(Some("<end>"), &[]).unwrap();
            let literal = tokenizer.find_controls(&guard, &text).unwrap();
            let tokens = tokenizer.encode_within("", &text, &literal).unwrap();
            let control = |token: &&u32| tokenizer.added.tokens.iter().any(|entry| {
                entry.id == **token && entry.id != 0 && (entry.special || entry.content == "<end>")
            });
            prop_assert_eq!(tokens.iter().find(control), None, "{}", name);
            if name != "without fallback" {
                let shown = tokenizer.decode(&tokens).unwrap();
                prop_assert_eq!(shown.trim_start(), text.trim_start(), "{}", name);
            }
        }
    }
}

#[test]
fn what_follows_an_answer_has_no_space_of_its_own() {
    let tokenizer = sentence_piece();
    let you = tokenizer.token("you").unwrap();
    assert_eq!(tokenizer.encode_within("Hi", "you", &[]).unwrap(), [you]);
    assert_ne!(tokenizer.encode("you", false).unwrap(), [you]);
    // "! " is one token, but the exclamation mark was said already.
    let space = tokenizer.token("▁").unwrap();
    assert_eq!(tokenizer.encode_within("Hi!", " ", &[]).unwrap(), [space]);
}

#[test]
fn special_tokens_are_read_and_not_shown() {
    let tokenizer = demo("pocket-gemma");
    assert_eq!(tokenizer.encode("<start_of_turn>", false).unwrap(), [5]);
    assert_eq!(tokenizer.encode("<start_of_turn>", true).unwrap(), [2, 5]);
    assert_eq!(tokenizer.opening().unwrap(), [2]);
    assert_eq!(tokenizer.token("<end_of_turn>"), Some(6));
    let mut tokens = tokenizer.encode("Hello!", false).unwrap();
    tokens.insert(1, 6);
    assert_eq!(tokenizer.decode(&tokens).unwrap(), "Hello!");
}

/// Some models have special tokens among their words, which text alone may spell.
#[test]
fn special_tokens_among_the_words_are_spelled() {
    let words: Vec<Value> = ["<unk>", "<s>", "<", "s", ">", "a", "▁"]
        .iter()
        .map(|word| json!([word, if word.len() > 2 { 0.0 } else { -3.0 }]))
        .collect();
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": {"type": "NFKC"}, "pre_tokenizer": null,
        "added_tokens": [added(1, "<s>", true, json!({}))], "post_processor": null, "decoder": null,
        "model": {"type": "Unigram", "unk_id": 0, "vocab": words, "byte_fallback": false},
    });
    let tokenizer = Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap();
    let guard = tokenizer.controls(None, &[]).unwrap();
    for text in ["a<s>a", "a＜ｓ＞a"] {
        let literal = tokenizer.find_controls(&guard, text).unwrap();
        assert_eq!((literal.len(), literal[0].clone()), (1, 1..text.len() - 1));
        assert_eq!(tokenizer.encode_within("", text, &literal).unwrap(), [5, 2, 3, 4, 5], "{text}");
    }
}

#[test]
fn control_tokens_are_special_or_written_by_the_template() {
    let tokenizer = sentence_piece();
    let find = |written, more: &[&str], text| {
        let guard = tokenizer.controls(written, more).unwrap();
        tokenizer.find_controls(&guard, text).unwrap()
    };
    assert_eq!(find(None, &[], "a <s></s> <end>"), [2..5, 5..9]);
    assert_eq!(find(Some("x<end>"), &[], "a <s> <end>"), [2..5, 6..11]);
    assert_eq!(find(None, &["<end>"], "x<end><s>"), [1..6, 6..9]);
    assert!(find(None, &[], "").is_empty());
}

#[test]
fn truncation_is_switched_off() {
    assert!(metaspace("always").encode("Hi you Hi you", false).unwrap().len() > 2);
}

#[test]
fn broken_files_are_errors() {
    for bytes in [&b""[..], b"{}", b"{\"version\":\"1.0\"}", b"\xff\xfe"] {
        assert!(matches!(Tokenizer::from_bytes(bytes), Err(Error::Read(_))));
    }
}

/// A token's bytes are what it adds behind another one; special ones have their texts.
#[test]
fn bytes_of_tokens_join_to_the_text() {
    for (name, tokenizer) in all() {
        let before = tokenizer.encode("Hi", false).unwrap();
        let text = "Hi you Hi";
        let tokens = tokenizer.encode(text, false).unwrap();
        let found: Vec<u8> = tokens[before.len()..].iter().flat_map(|&token| tokenizer.token_bytes(token)).collect();
        assert_eq!(String::from_utf8_lossy(&found), " you Hi", "{name}: {tokens:?}");
    }
    for (model, end) in [("pocket-gemma", "<end_of_turn>"), ("pocket-llava", "<|im_end|>")] {
        let tokenizer = demo(model);
        let text = "Grüße, 👍 and\nmore";
        let tokens = tokenizer.encode(text, false).unwrap();
        let found: Vec<u8> = tokens.iter().flat_map(|&token| tokenizer.token_bytes(token)).collect();
        assert_eq!(String::from_utf8_lossy(&found).trim_start(), text, "{model}");
        let token = tokenizer.token(end).unwrap();
        assert_eq!((tokenizer.token_bytes(token), tokenizer.is_special(token)), (end.as_bytes().to_vec(), true));
        assert!(!tokenizer.is_special(tokens[0]) && tokenizer.token_bytes(1 << 30).is_empty());
    }
}
