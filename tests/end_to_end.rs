//! The demo models against what transformers answers: captions of pictures, conversations, and both together.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use dwindle_bundle::Bundle;
use dwindle_compiler::checkpoint::{ModelDir, convert};
use dwindle_compiler::compile::{CompileOptions, compile};
use dwindle_compiler::progress::Silent;
use dwindle_compiler::quantize::quantize;
use dwindle_compiler::target::TargetName;
use dwindle_quant::Method;
use dwindle_runtime::image::Picture;
use dwindle_runtime::{Conversation, ConversationOptions, SamplingChoice};
use dwindle_schemes::Scheme;
use serde_json::Value;

use crate::workbench::{Dwindle, root, targets};

/// These demo models, compiled together.
fn compiled(names: &[&str], scheme: &str, target: TargetName) -> Bundle {
    let folder = tempfile::tempdir().unwrap();
    let mut models = Vec::new();
    for name in names {
        let (full, packed) = (folder.path().join("full").join(name), folder.path().join(name));
        let (model, _) = convert(&root().join("demo").join(name), &full, &Silent).unwrap();
        quantize(&model, &Scheme::builtin(scheme).unwrap(), Method::Rtn, &packed, &Silent).unwrap();
        models.push(ModelDir::open(&packed).unwrap());
    }
    let out = folder.path().join("out.dwindle");
    compile(&models, &CompileOptions::new(target), &out, &Silent).unwrap();
    Bundle::open(&out).unwrap()
}

fn conversation(bundle: &Bundle) -> Conversation {
    let sampling = SamplingChoice { temperature: Some(0.0), ..SamplingChoice::default() };
    Conversation::open(bundle, ConversationOptions { sampling, max_tokens: 120, ..ConversationOptions::default() })
        .unwrap()
}

fn expected(path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(root().join(path)).unwrap()).unwrap()
}

fn picture(name: &str) -> Picture {
    Picture::decode(&std::fs::read(root().join("demo/images").join(name)).unwrap()).unwrap()
}

fn ask(conversation: &mut Conversation, message: &str, pictures: &[Picture]) -> dwindle_runtime::Turn {
    conversation.ask(message, pictures, &mut |_| (), &AtomicBool::new(false)).unwrap()
}

/// How many of the twelve captions equal transformers' in f32.
fn right_captions(scheme: &str, target: TargetName) -> usize {
    let bundle = compiled(&["pocket-llava"], scheme, target);
    let mut conversation = conversation(&bundle);
    let images = expected("demo/images/expected.json");
    let images = images["images"].as_array().unwrap();
    assert_eq!(images.len(), 12);
    let right = |image: &&Value| {
        conversation.reset().unwrap();
        let name = image["file"].as_str().unwrap();
        let turn = ask(&mut conversation, "Describe the image.", &[picture(name)]);
        let same = turn.answer == image["expected"].as_str().unwrap();
        if !same {
            println!("{scheme} {name}: {}", turn.answer);
        }
        same
    };
    images.iter().filter(right).count()
}

#[test]
fn captions() {
    for target in targets() {
        assert_eq!(right_captions("q0f16", target), 12);
        let right = right_captions("q4f16_1", target);
        println!("q4f16_1 {target}: {right} of 12");
        assert!(right >= 10, "only {right} of 12 captions are right with q4f16_1 on {target}");
    }
}

/// Several pictures in one conversation are seen with less detail each, as transformers' processor has them: the tokens and the
/// answer are its own.
#[test]
fn several_pictures_at_once_or_one_after_another() {
    let bundle = compiled(&["pocket-llava"], "q0f32", TargetName::Cpu);
    let mut conversation = conversation(&bundle);
    let pictures = ["08-gradient-88x96.png", "09-strip-190x80.jpg", "04-portrait-120x180.png"].map(picture);
    let turn = ask(&mut conversation, "Describe the image.", &pictures);
    assert_eq!((turn.prefill.tokens, turn.encode.tokens, turn.reshown), (124, 111, 0));
    assert_eq!(
        turn.answer,
        "A red cross on the left, an orange circle on the right and a black heart at the bottom, on a gradient background from white to gray."
    );
    // In a second turn, the first picture is read again in the form that it has beside another one.
    conversation.reset().unwrap();
    let alone = ask(&mut conversation, "Describe the image.", &pictures[1..2]);
    assert!(alone.encode.tokens > 37, "{}", alone.encode.tokens);
    let second = ask(&mut conversation, "Describe the image.", &pictures[2..]);
    assert_eq!((second.encode.tokens, second.reshown), (2 * 37, 1));
}

/// The conversations in f32, word for word, and nothing of the history computed twice.
#[test]
fn conversations() {
    targets().into_iter().for_each(conversations_on);
}

fn conversations_on(target: TargetName) {
    let bundle = compiled(&["pocket-gemma"], "q0f32", target);
    let mut conversation = conversation(&bundle);
    let chats = expected("demo/chats/expected.json");
    for chat in chats["chats"].as_array().unwrap() {
        conversation.reset().unwrap();
        for turn in chat.as_array().unwrap() {
            let message = turn["user"].as_str().unwrap();
            let answer = ask(&mut conversation, message, &[]);
            assert_eq!(answer.answer, turn["expected"].as_str().unwrap(), "to {message}");
            assert_eq!(answer.recomputed, 0, "to {message}");
        }
    }
}

#[test]
fn a_conversation_with_four_bit_weights_stays_right() {
    targets().into_iter().for_each(a_conversation_with_four_bit_weights_stays_right_on);
}

fn a_conversation_with_four_bit_weights_stays_right_on(target: TargetName) {
    let bundle = compiled(&["pocket-gemma"], "q4f16_1", target);
    let mut conversation = conversation(&bundle);
    let chats = expected("demo/chats/expected.json");
    for turn in chats["chats"][0].as_array().unwrap() {
        let message = turn["user"].as_str().unwrap();
        assert_eq!(ask(&mut conversation, message, &[]).answer, turn["expected"].as_str().unwrap(), "to {message}");
    }
}

/// What the README shows: the built-in demo describes a picture and talks about it.
#[test]
fn the_built_in_demo() {
    let dwindle = Dwindle::new();
    let image = root().join("demo/images/01-square-96.png").display().to_string();
    let json = dwindle.run(&[
        "run",
        "--image",
        &image,
        "--prompt",
        "What color is the background?",
        "--temperature",
        "0",
        "--json",
    ]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["answer"], "The background is black.");
    let truth = "A red cross at the top, a pink triangle in the center and an orange star at the bottom, on a black background.";
    assert_eq!(json["descriptions"], serde_json::json!([truth]));
    for phase in ["encode_image", "describe", "prefill", "decode"] {
        assert!(json[phase]["tokens"].as_u64().unwrap() > 0, "{phase}");
        assert!(json[phase]["seconds"].as_f64().unwrap() > 0.0, "{phase}");
    }
    // Once more, from the cache, as text on stdout alone.
    let again =
        dwindle.run(&["run", "--image", &image, "--prompt", "What color is the background?", "--temperature", "0"]);
    assert_eq!(again, "The background is black.\n");
}

/// A chat over a pipe: a path in a message, a follow-up, a path that is not there.
#[test]
fn a_chat_over_a_pipe() {
    use std::io::Write;
    let dwindle = Dwindle::new();
    std::fs::copy(root().join("demo/images/01-square-96.png"), dwindle.path("my picture.png")).unwrap();
    let mut command = dwindle.command(&["run", "--temperature", "0"]);
    command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"What color is the background? \"my picture.png\"\nHow many shapes are there?\nlook at nowhere.png\n/exit\n").unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(
        out, "The background is black.\nThere are three shapes: a red cross, a pink triangle and an orange star.\n",
        "{err}"
    );
    assert!(err.contains("cannot find the picture nowhere.png"), "{err}");
}

/// The embedded models are what the tools make of the checkpoints beside them.
#[test]
fn the_embedded_models_are_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["pocket-gemma", "pocket-llava"] {
        let (full, packed) = (folder.path().join("full").join(name), folder.path().join(name));
        let (model, _) = convert(&root().join("demo").join(name), &full, &Silent).unwrap();
        quantize(&model, &Scheme::builtin("q4f16_1").unwrap(), Method::Rtn, &packed, &Silent).unwrap();
        let embedded = root().join("demo/packed").join(name);
        let list = |path: &Path| {
            let mut names: Vec<_> = std::fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(list(&packed), list(&embedded), "run demo/pack");
        for file in list(&packed) {
            let same = std::fs::read(packed.join(&file)).unwrap() == std::fs::read(embedded.join(&file)).unwrap();
            assert!(same, "{name}/{} is not what quantize makes now: run demo/pack", file.display());
        }
    }
}
