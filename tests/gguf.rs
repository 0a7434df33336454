//! GGUF files by the command line: from the file to an answer, and tokenizers that encode as those they were written from.

// The files are written by the writer of the documented format that the compiler's tests have.
#[path = "../compiler/src/checkpoint/import/gguf/tests/writer.rs"]
#[allow(dead_code, reason = "other tests write other values")]
mod writer;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use dwindle_compiler::checkpoint::Source;
use dwindle_runtime::tokenizer::Tokenizer;
use serde_json::Value;

use self::writer::{Gguf, Meta, Storage};
use crate::workbench::{Dwindle, root};

const TEXTS: [&str; 10] = [
    "Hello! My name is Ana.",
    "What is in the picture?",
    "a red square on a white background",
    "Grüße, naïve café, 漢字",
    "👩‍👩‍👧‍👦 and 🏴‍☠️",
    " leading, trailing \n\n and   several  spaces\n",
    "line\n\tline",
    "It's 1234567 o'clock, they're there.",
    "<start_of_turn>user\nHi<end_of_turn>\n<|im_start|>system",
    "",
];

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Tokens, kinds (llama.cpp's numbers) and merges of a `tokenizer.json`.
struct Tokens {
    texts: Vec<String>,
    kinds: Vec<i32>,
    merges: Vec<(String, String)>,
}

impl Tokens {
    fn read(tokenizer: &Value, count: usize) -> Self {
        // llama.cpp's converter fills numbers without a token.
        let mut texts: Vec<String> = (0..count).map(|id| format!("[PAD{id}]")).collect();
        let mut kinds = vec![5; count];
        for (text, id) in tokenizer["model"]["vocab"].as_object().unwrap() {
            let id = id.as_u64().unwrap() as usize;
            let is_byte = text.len() == 6 && text.starts_with("<0x") && text.ends_with('>');
            (texts[id], kinds[id]) = (text.clone(), if is_byte { 6 } else { 1 });
        }
        for token in tokenizer["added_tokens"].as_array().unwrap() {
            let id = token["id"].as_u64().unwrap() as usize;
            texts[id] = token["content"].as_str().unwrap().to_owned();
            kinds[id] = if token["special"] == true { 3 } else { 4 };
        }
        let pair = |pair: &Value| (pair[0].as_str().unwrap().to_owned(), pair[1].as_str().unwrap().to_owned());
        let merges = tokenizer["model"]["merges"].as_array().unwrap().iter().map(pair).collect();
        Tokens { texts, kinds, merges }
    }

    fn write(&self, gguf: &mut Gguf) {
        gguf.set("tokenizer.ggml.tokens", Meta::Texts(self.texts.clone()));
        gguf.set("tokenizer.ggml.token_type", Meta::I32s(self.kinds.clone()));
    }
}

/// A demo model's language model as llama.cpp's converter would write it; `prefix` stands before its tensors' names.
///
/// Where rows are no whole blocks of `storage`, they are stored as `Q5_0`.
fn model(name: &str, architecture: &str, prefix: &str, storage: Storage) -> Gguf {
    let source = Source::open(&root().join("demo").join(name)).unwrap();
    let config = source.outline().config().get("text_config").unwrap_or(&Value::Null);
    let config = config.as_object().unwrap_or(source.outline().config());
    let mut gguf = Gguf::default();
    gguf.set("general.architecture", Meta::Text(architecture.to_owned()));
    for (theirs, ours) in [
        ("block_count", "num_hidden_layers"),
        ("context_length", "max_position_embeddings"),
        ("embedding_length", "hidden_size"),
        ("feed_forward_length", "intermediate_size"),
        ("attention.head_count", "num_attention_heads"),
        ("attention.head_count_kv", "num_key_value_heads"),
        ("attention.key_length", "head_dim"),
        ("attention.value_length", "head_dim"),
        ("attention.sliding_window", "sliding_window"),
    ] {
        if let Some(size) = config.get(ours).and_then(Value::as_u64) {
            gguf.set(&format!("{architecture}.{theirs}"), Meta::U32(size as u32));
        }
    }
    gguf.set(&format!("{architecture}.attention.layer_norm_rms_epsilon"), Meta::F32(1e-6));
    let gemma = architecture == "gemma2";
    if gemma {
        gguf.set("gemma2.attn_logit_softcapping", Meta::F32(50.0));
        gguf.set("gemma2.final_logit_softcapping", Meta::F32(30.0));
    }
    let names = [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("model.layers.", "blk."),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", if gemma { "post_attention_norm" } else { "ffn_norm" }),
        ("pre_feedforward_layernorm", "ffn_norm"),
        ("post_feedforward_layernorm", "post_ffw_norm"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.", "attn_"),
        ("mlp.", "ffn_"),
        ("_proj.", "."),
    ];
    for (_, view) in source.tensors() {
        let Some(name) = view.name.strip_prefix(prefix).filter(|name| name.starts_with("model.")) else { continue };
        let theirs = names.iter().fold(name.to_owned(), |name, (ours, theirs)| name.replace(ours, theirs));
        let mut values = view.to_f32().unwrap();
        if gemma && name.ends_with("norm.weight") {
            values.iter_mut().for_each(|value| *value += 1.0);
        }
        let storage = match view.shape {
            [_] => Storage::F32,
            [.., columns] if columns % storage.block().0 == 0 => storage,
            _ => Storage::Q5_0,
        };
        gguf.push(&theirs, view.shape, storage, &values);
    }
    gguf
}

/// The chatting demo model: pieces with scores. A piece's is the rank of the first merge that makes it.
fn pocket_gemma(storage: Storage) -> (Gguf, Tokens, Vec<f32>) {
    let folder = root().join("demo/pocket-gemma");
    let mut gguf = model("pocket-gemma", "gemma2", "", storage);
    let tokens = Tokens::read(&json(&folder.join("tokenizer.json")), 2048);
    let mut scores = vec![-1e6; tokens.texts.len()];
    let ids: HashMap<&str, usize> = tokens.texts.iter().enumerate().map(|(id, text)| (text.as_str(), id)).collect();
    for (rank, (left, right)) in tokens.merges.iter().enumerate() {
        let score = &mut scores[ids[format!("{left}{right}").as_str()]];
        *score = f32::max(*score, -(rank as f32));
    }
    tokens.write(&mut gguf);
    gguf.set("tokenizer.ggml.model", Meta::Text("llama".to_owned()));
    gguf.set("tokenizer.ggml.scores", Meta::F32s(scores.clone()));
    gguf.set("tokenizer.ggml.add_space_prefix", Meta::Bool(false));
    for (name, id) in [("bos", 2), ("eos", 1), ("unknown", 3), ("padding", 0), ("eot", 6)] {
        gguf.set(&format!("tokenizer.ggml.{name}_token_id"), Meta::U32(id));
    }
    let config = json(&folder.join("tokenizer_config.json"));
    gguf.set("tokenizer.chat_template", Meta::Text(config["chat_template"].as_str().unwrap().to_owned()));
    (gguf, tokens, scores)
}

/// Converts a file and reads the tokenizer of the model directory.
fn converted(dwindle: &Dwindle, gguf: &Gguf) -> Tokenizer {
    std::fs::write(dwindle.path("model.gguf"), gguf.bytes()).unwrap();
    dwindle.run(&["convert", "model.gguf", "-o", "model"]);
    Tokenizer::from_bytes(&std::fs::read(dwindle.path("model/tokenizer.json")).unwrap()).unwrap()
}

#[track_caller]
fn check_tokenizers(found: &Tokenizer, name: &str) {
    let original = std::fs::read(root().join("demo").join(name).join("tokenizer.json")).unwrap();
    let original = Tokenizer::from_bytes(&original).unwrap();
    for text in TEXTS {
        for special in [false, true] {
            let expected = original.encode(text, special).unwrap();
            assert_eq!(found.encode(text, special).unwrap(), expected, "{text:?}");
            assert_eq!(found.decode(&expected).unwrap(), original.decode(&expected).unwrap(), "{text:?}");
        }
    }
}

/// SentencePiece's own way: join the neighbours whose union has the highest score, the leftmost of equals; characters that are no
/// pieces become bytes.
fn sentence_piece(text: &str, tokens: &Tokens, scores: &[f32]) -> Vec<u32> {
    let normal = tokens.texts.iter().enumerate().filter(|(id, _)| tokens.kinds[*id] == 1);
    let ids: BTreeMap<&str, usize> = normal.map(|(id, text)| (text.as_str(), id)).collect();
    let mut parts: Vec<String> = text.replace(' ', "▁").chars().map(String::from).collect();
    loop {
        let union = |at: usize| Some((scores[*ids.get(format!("{}{}", parts[at], parts[at + 1]).as_str())?], at));
        let best = (0..parts.len().saturating_sub(1)).filter_map(union);
        let Some((_, at)) = best.reduce(|best, next| if next.0 > best.0 { next } else { best }) else { break };
        let right = parts.remove(at + 1);
        parts[at].push_str(&right);
    }
    let byte = |byte: u8| tokens.texts.iter().position(|text| *text == format!("<0x{byte:02X}>")).unwrap() as u32;
    let part = |part: &String| match ids.get(part.as_str()) {
        Some(id) => vec![*id as u32],
        None => part.bytes().map(byte).collect(),
    };
    parts.iter().flat_map(part).collect()
}

/// From the file to an answer, and to the same logits as by the checkpoint: its values fit bf16, so the floats of the file are those
/// of the checkpoint but for norms.
#[test]
fn from_a_file_to_an_answer() {
    let dwindle = Dwindle::new();
    let (gguf, tokens, scores) = pocket_gemma(Storage::Q8_0);
    let tokenizer = converted(&dwindle, &gguf);
    check_tokenizers(&tokenizer, "pocket-gemma");
    // Added tokens (line breaks) are found before pieces are joined.
    for text in TEXTS.into_iter().filter(|text| !text.contains(['\n', '<'])) {
        assert_eq!(tokenizer.encode(text, false).unwrap(), sentence_piece(text, &tokens, &scores), "{text:?}");
    }

    dwindle.run(&["compile", "model", "--target", "cpu", "-o", "chat.dwindle"]);
    let demo = root().join("demo/pocket-gemma").display().to_string();
    let ask = |source: &str| {
        let scheme = ["--scheme", "q8f16_1"].into_iter().filter(|_| source == demo);
        let arguments = ["run", source, "--device", "cpu", "--temperature", "0", "--prompt", "Hello! My name is Ana."];
        dwindle.run(&arguments.into_iter().chain(scheme).collect::<Vec<_>>())
    };
    let answer = ask("chat.dwindle");
    assert!(answer.contains("Ana"), "{answer:?}");
    assert_eq!(answer, ask(&demo));
    assert_eq!(answer, ask("model.gguf"), "all at once");

    let (gguf, ..) = pocket_gemma(Storage::F32);
    converted(&dwindle, &gguf);
    for (source, packed) in [("model", "of-file"), ("checkpoint", "of-checkpoint")] {
        if source == "checkpoint" {
            dwindle.run(&["convert", &demo, "-o", source]);
        }
        dwindle.run(&["quantize", source, "--scheme", "q4f16_1", "-o", packed]);
        dwindle.run(&["compile", packed, "--target", "cpu", "-o", &format!("{packed}.dwindle")]);
    }
    let (found, expected) = (logits(&dwindle, "of-file.dwindle"), logits(&dwindle, "of-checkpoint.dwindle"));
    let difference = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let range = expected.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    assert!(difference <= 1e-3 * range, "{difference} of {range}");
}

/// Bytes as characters, merges as they are listed.
#[test]
fn byte_level_tokenizers() {
    let dwindle = Dwindle::new();
    let mut gguf = model("pocket-llava", "qwen2", "language_model.", Storage::Q4_0);
    let tokens = Tokens::read(&json(&root().join("demo/pocket-llava/tokenizer.json")), 768);
    tokens.write(&mut gguf);
    gguf.set("tokenizer.ggml.model", Meta::Text("gpt2".to_owned()));
    gguf.set("tokenizer.ggml.pre", Meta::Text("qwen2".to_owned()));
    let merges = tokens.merges.iter().map(|(left, right)| format!("{left} {right}"));
    gguf.set("tokenizer.ggml.merges", Meta::Texts(merges.collect()));
    gguf.set("tokenizer.ggml.eos_token_id", Meta::U32(765));
    check_tokenizers(&converted(&dwindle, &gguf), "pocket-llava");
    // Ways of splitting that no demo model has: the words are those of their expressions.
    for (name, text, words) in [
        ("llama-bpe", "we're 12345 x", "we|'re|Ġ|123|45|Ġx"),
        ("smollm", "we're 123", "we|'re|Ġ|1|2|3"),
        ("gpt-2", "we're 123  x", "we|'re|Ġ123|Ġ|Ġx"),
        ("dbrx", "we're 12345 x", "we|'re|Ġ|123|45|Ġx"),
        ("deepseek-r1-qwen", "we're 123 x", "we|'re|Ġ|1|2|3|Ġx"),
        ("tekken", "weRe, 12/n", "we|Re|,|Ġ|1|2|/n"),
        ("gpt-4o", "weRe'll 1234 x", "we|Re'll|Ġ|123|4|Ġx"),
        ("seed-coder", "we 12", "we|Ġ|1|2"),
        ("deepseek-coder", "we, 12", "we|,|Ġ|1|2"),
        ("deepseek-v3", "a.b 1234", "a|.b|Ġ|123|4"),
        ("default", "we're=1234", "we|'|re|=|123|4"),
    ] {
        gguf.set("tokenizer.ggml.pre", Meta::Text(name.to_owned()));
        gguf.set("tokenizer.ggml.add_bos_token", Meta::Bool(false));
        let tokenizer = converted(&dwindle, &gguf);
        let of_words: Vec<u32> = words.split('|').flat_map(|word| merged(word, &tokens)).collect();
        assert_eq!(tokenizer.encode(text, false).unwrap(), of_words, "{name}");
    }
}

/// One word's tokens: the first merge of the list that applies, until none does.
fn merged(word: &str, tokens: &Tokens) -> Vec<u32> {
    let mut parts: Vec<String> = word.chars().map(String::from).collect();
    let rank = |left: &str, right: &str| tokens.merges.iter().position(|(l, r)| l == left && r == right);
    loop {
        let ranks = (0..parts.len().saturating_sub(1)).filter_map(|at| Some((rank(&parts[at], &parts[at + 1])?, at)));
        let Some((_, at)) = ranks.min() else { break };
        let right = parts.remove(at + 1);
        parts[at].push_str(&right);
    }
    let id = |part: &String| tokens.texts.iter().position(|text| text == part).unwrap() as u32;
    parts.iter().map(id).collect()
}

/// The logits of a bundle's model for a few tokens.
fn logits(dwindle: &Dwindle, bundle: &str) -> Vec<f32> {
    dwindle.run(&["logits", bundle, "--tokens", "2,651,9,12", "--device", "cpu", "-o", "logits.safetensors"]);
    let file = dwindle_compiler::checkpoint::safetensors::SafeTensors::open(&dwindle.path("logits.safetensors"));
    file.unwrap().tensor("logits").unwrap().to_f32().unwrap()
}

/// The mixture that `llama-quantize` makes where rows are no whole blocks of 256: queries, keys, gate and up in one type,
/// values, outputs and the projection down in others, the embedding (which is the head) in a third.
#[test]
fn a_published_mixture_runs() {
    let dwindle = Dwindle::new();
    let (mut gguf, ..) = pocket_gemma(Storage::Q4K);
    let (values, ..) = pocket_gemma(Storage::Q8_0);
    let (down, ..) = pocket_gemma(Storage::Q6K);
    for (index, tensor) in gguf.tensors.iter_mut().enumerate() {
        let even = tensor
            .0
            .split('.')
            .nth(1)
            .and_then(|layer| layer.parse::<usize>().ok())
            .is_some_and(|layer| layer % 2 == 0);
        if tensor.0 == "token_embd.weight" || tensor.0.contains("attn_v") && even {
            *tensor = values.tensors[index].clone();
        } else if tensor.0.contains("ffn_down") && even {
            *tensor = down.tensors[index].clone();
        }
    }
    let kinds: std::collections::BTreeSet<u32> = gguf.tensors.iter().map(|tensor| tensor.1).collect();
    let expected = [Storage::F32, Storage::Q5_0, Storage::Q8_0, Storage::Q4K, Storage::Q6K].map(Storage::number);
    assert_eq!(kinds, expected.into_iter().collect());
    converted(&dwindle, &gguf);
    dwindle.run(&["compile", "model", "--target", "cpu", "-o", "packed.dwindle"]);
    let answer = dwindle.run(&[
        "run",
        "packed.dwindle",
        "--device",
        "cpu",
        "--temperature",
        "0",
        "--prompt",
        "Hello! My name is Ana.",
    ]);
    assert!(answer.contains("Ana"), "{answer:?}");

    // The same values as floats.
    let all = writer::PACKED.into_iter().chain([Storage::F32]);
    for (_, kind, _, bytes) in &mut gguf.tensors {
        let from = all.clone().find(|storage| storage.number() == *kind).unwrap();
        (*kind, *bytes) = (Storage::F32.number(), Storage::F32.encode(&from.decode(bytes)));
    }
    converted(&dwindle, &gguf);
    dwindle.run(&["quantize", "model", "--scheme", "q0f32", "-o", "plain"]);
    dwindle.run(&["compile", "plain", "--target", "cpu", "-o", "plain.dwindle"]);
    let (found, expected) = (logits(&dwindle, "packed.dwindle"), logits(&dwindle, "plain.dwindle"));
    let difference = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let range = expected.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    assert!(difference <= 0.02 * 2.0 * range, "{difference} of {range}");
}

#[test]
fn mistakes() {
    let dwindle = Dwindle::new();
    let (mut gguf, ..) = pocket_gemma(Storage::Q4_0);
    // IQ3_S.
    gguf.tensors[0].1 = 21;
    gguf.tensors[0].2 = vec![256, 1];
    std::fs::write(dwindle.path("model.gguf"), gguf.bytes()).unwrap();
    expect_test::expect![[r#"
        exit code 3
        error: model.gguf: tensors of types that are not read: IQ3_S (token_embd.weight); F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS, BF16, MXFP4 are: make such a file with `llama-quantize F16.gguf OUT.gguf Q4_K_M`, or convert the Hugging Face checkpoint
    "#]].assert_eq(&dwindle.fail(&["convert", "model.gguf", "-o", "model"]));
    let bytes = gguf.bytes();
    std::fs::write(dwindle.path("model.gguf"), &bytes[..bytes.len() / 2]).unwrap();
    expect_test::expect![[r#"
        exit code 3
        error: model.gguf: tensor `blk.2.ffn_up.weight` has 82944 bytes at offset 1057536, but the file has 1091056 after its header: it is incomplete; download the file again
    "#]].assert_eq(&dwindle.fail(&["convert", "model.gguf", "-o", "model"]));
    assert!(!dwindle.path("model").exists());
}
