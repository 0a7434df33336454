//! Engines with real bundles: many conversations with one set of weights, conversations on disk, and what all that takes of memory.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use dwindle_bundle::Bundle;
use dwindle_compiler::checkpoint::ModelDir;
use dwindle_compiler::compile::{CompileOptions, compile};
use dwindle_compiler::progress::Silent;
use dwindle_compiler::target::TargetName;
use dwindle_runtime::engine::{Event, Message, Outcome, Part, Prompt, Request, Role};
use dwindle_runtime::image::Picture;
use dwindle_runtime::{Engine, EngineOptions, Sampling};
use expect_test::{Expect, expect};

use crate::workbench::{root, targets};

/// These demo models, compiled together.
fn compiled(names: &[&str], target: TargetName) -> Bundle {
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &&str| ModelDir::open(&root().join("demo/packed").join(name)).unwrap();
    let models: Vec<ModelDir> = names.iter().map(open).collect();
    let out = folder.path().join("out.dwindle");
    compile(&models, &CompileOptions::new(target), &out, &Silent).unwrap();
    Bundle::open(&out).unwrap()
}

fn engine(bundle: &Bundle, slots: usize) -> Engine {
    Engine::open(bundle, &EngineOptions { slots, ..EngineOptions::default() }).unwrap()
}

fn message(role: Role, text: &str, pictures: &[&str]) -> Message {
    let read = |name: &&str| std::fs::read(root().join("demo/images").join(name)).unwrap();
    let shown = pictures.iter().map(|name| Part::Picture(Arc::new(Picture::decode(&read(name)).unwrap())));
    let content = shown.chain([Part::Text(text.to_owned())]).collect();
    Message { role, content, tool_calls: Vec::new(), tool_call_id: None, name: None }
}

fn request(messages: &[Message]) -> Request {
    Request {
        prompt: Prompt::Messages { messages: messages.to_vec(), tools: Vec::new() },
        sampling: Sampling::default(),
        max_tokens: Some(24),
        stop: Vec::new(),
        top_logprobs: None,
        logit_bias: Vec::new(),
        mask: None,
        may_forget: false,
    }
}

fn generate(engine: &mut Engine, request: Request) -> Outcome {
    engine.generate(request, &mut |_| ControlFlow::Continue(()), &AtomicBool::new(false)).unwrap()
}

/// Asks, and remembers question and answer.
fn ask(engine: &mut Engine, said: &mut Vec<Message>, text: &str, pictures: &[&str]) -> Outcome {
    said.push(message(Role::User, text, pictures));
    let outcome = generate(engine, request(said));
    said.push(message(Role::Assistant, &outcome.text, &[]));
    outcome
}

const QUESTIONS: [[&str; 3]; 2] = [
    ["Hello!", "What color is a cross?", "Tell me about it."],
    ["A red circle on a white background.", "What shape is it?", "And its color?"],
];

/// Two conversations that take turns give the tokens that each gives alone.
#[test]
fn conversations_do_not_touch_each_other() {
    for target in targets() {
        let bundle = compiled(&["pocket-gemma"], target);
        let alone = QUESTIONS.map(|questions| {
            let (mut engine, mut said) = (engine(&bundle, 1), Vec::new());
            questions.map(|question| ask(&mut engine, &mut said, question, &[]).tokens)
        });
        let mut engine = engine(&bundle, 2);
        let mut said = [Vec::new(), Vec::new()];
        for turn in 0..3 {
            for chat in 0..2 {
                let outcome = ask(&mut engine, &mut said[chat], QUESTIONS[chat][turn], &[]);
                assert_eq!(outcome.tokens, alone[chat][turn], "{target}: chat {chat}, turn {turn}");
                assert_eq!(outcome.recomputed, 0);
                assert_eq!(turn > 0, outcome.cached_tokens > 10, "{target}");
            }
        }
    }
}

/// A conversation that goes on in two ways: what is copied is what would be computed.
#[test]
fn branches_give_what_they_give_alone() {
    for target in targets() {
        let bundle = compiled(&["pocket-gemma"], target);
        let mut both = engine(&bundle, 2);
        let mut said = Vec::new();
        for question in QUESTIONS[0].iter().chain(&QUESTIONS[1]) {
            ask(&mut both, &mut said, question, &[]);
        }
        let mut branch = said[..4].to_vec();
        let copied = ask(&mut both, &mut branch, "What shape is it?", &[]);
        assert!(copied.cached_tokens > 16 && copied.recomputed == 0, "{copied:?}");
        let mut alone = engine(&bundle, 1);
        let expected = generate(&mut alone, request(&branch[..5]));
        assert_eq!(copied.tokens, expected.tokens, "{target}");
        // The trunk is as it was.
        let next = ask(&mut both, &mut said, "And now?", &[]);
        assert_eq!((next.recomputed, next.cached_tokens > copied.cached_tokens), (0, true));
    }
}

/// After a model's memory was given back, conversations go on where they were, or begin anew.
#[test]
fn idle_engines_come_back() {
    for target in targets() {
        let bundle = compiled(&["pocket-gemma"], target);
        let (mut engine, mut said) = (engine(&bundle, 2), Vec::new());
        ask(&mut engine, &mut said, "Hello!", &[]);
        let expected = generate(&mut engine, request(&[&said[..], &[message(Role::User, "And?", &[])]].concat()));
        engine.unload(true).unwrap();
        said.push(message(Role::User, "And?", &[]));
        let kept = generate(&mut engine, request(&said));
        assert_eq!((kept.tokens.clone(), kept.cached_tokens > 0), (expected.tokens.clone(), true), "{target}");
        engine.unload(false).unwrap();
        engine.load().unwrap();
        let anew = generate(&mut engine, request(&said));
        assert_eq!((anew.text, anew.cached_tokens), (expected.text, 0), "{target}");
    }
}

/// Pictures anywhere in a conversation are described once, whoever asks.
#[test]
fn pictures_are_described_once() {
    let bundle = compiled(&["pocket-llava", "pocket-gemma"], TargetName::Cpu);
    let mut engine = engine(&bundle, 2);
    let mut told = Vec::new();
    let mut asked = |engine: &mut Engine, said: &[Message]| {
        let mut events = |event: Event<'_>| {
            match event {
                Event::Describing { picture, pictures } => told.push(format!("describing {picture} of {pictures}")),
                Event::Described { picture, cached, .. } => told.push(format!("described {picture}, cached {cached}")),
                _ => {}
            }
            ControlFlow::Continue(())
        };
        let outcome = engine.generate(request(said), &mut events, &AtomicBool::new(false)).unwrap();
        (std::mem::take(&mut told), outcome)
    };
    let first = message(Role::User, "What do you see?", &["01-square-96.png"]);
    let (events, outcome) = asked(&mut engine, std::slice::from_ref(&first));
    assert_eq!(events, ["describing 0 of 1", "described 0, cached false"]);
    assert!(outcome.descriptions[0].contains("red cross") && outcome.describe.tokens > 5);
    let answer = message(Role::Assistant, &outcome.text, &[]);
    let second = message(Role::User, "And these?", &["02-landscape-200x120.jpg", "01-square-96.png"]);
    let (events, next) = asked(&mut engine, &[first.clone(), answer, second.clone()]);
    assert_eq!(
        events,
        ["described 0, cached true", "describing 1 of 3", "described 1, cached false", "described 2, cached true"]
    );
    assert_eq!((next.descriptions[0].as_str(), next.recomputed), (outcome.descriptions[0].as_str(), 0));
    assert_eq!(next.descriptions[2], next.descriptions[0]);
    // Another conversation knows them, too.
    let (events, other) = asked(&mut engine, &[second]);
    assert_eq!(events, ["described 0, cached true", "described 1, cached true"]);
    assert_eq!((other.describe.tokens, other.encode.tokens), (0, 0));
}

/// Saved conversations are planned for; weights are there once.
#[test]
fn saved_conversations_count() {
    let bundle = compiled(&["pocket-gemma"], TargetName::Cpu);
    let model = &bundle.manifest().models[0];
    let [one, four] = [1, 4].map(|slots| engine(&bundle, slots).info().clone());
    assert_eq!(one.planned_peak_bytes, bundle.manifest().memory.peak);
    assert_eq!(one.slot_bytes, model.memory.states);
    assert_eq!(four.planned_peak_bytes, one.planned_peak_bytes + 3 * model.memory.states);
    assert_eq!(four.device_bytes, one.device_bytes + 3 * model.memory.states);
    // Far more than any machine has.
    let too_many = EngineOptions { slots: usize::MAX >> 8, ..EngineOptions::default() };
    let error = Engine::open(&bundle, &too_many).unwrap_err();
    assert!(matches!(error, dwindle_runtime::Error::Memory { .. }), "{error}");
}

/// A conversation goes on in another process, and another conversation's place.
#[test]
fn conversations_survive_on_disk() {
    for target in targets() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chat.seq");
        let bundle = compiled(&["pocket-gemma"], target);
        let (mut first, mut said) = (engine(&bundle, 2), Vec::new());
        ask(&mut first, &mut said, "Hello!", &[]);
        ask(&mut first, &mut said, "What color is a cross?", &[]);
        let (slot, positions) = *first.saved().last().unwrap();
        first.save(slot, &path).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left aside");
        said.push(message(Role::User, "Tell me more.", &[]));
        let expected = generate(&mut first, request(&said));

        let mut second = engine(&bundle, 2);
        second.restore(1, &path).unwrap();
        assert_eq!(second.saved().last(), Some(&(1, positions)));
        let found = generate(&mut second, request(&said));
        assert_eq!((found.tokens, found.recomputed), (expected.tokens, 0), "{target}");
        assert_eq!(found.cached_tokens, expected.cached_tokens);
        // Over itself, and back.
        second.save(1, &path).unwrap();
        second.restore(0, &path).unwrap();
    }
}

/// Restores a file whose bytes were changed, into a fresh engine.
#[track_caller]
fn check_refused(bundle: &Bundle, folder: &Path, bytes: &[u8], expected: Expect) {
    let path = folder.join("changed.seq");
    std::fs::write(&path, bytes).unwrap();
    let mut engine = engine(bundle, 1);
    let error = engine.restore(0, &path).unwrap_err();
    assert!(matches!(error, dwindle_runtime::Error::Saved(_)), "{error:?}");
    expected.assert_eq(&error.to_string().replace(&format!("{}/", folder.display()), ""));
    // The engine goes on as if nothing had been.
    assert_eq!(engine.saved(), [(0, 0)]);
    let said = [message(Role::User, "Hello!", &[])];
    let outcome = generate(&mut engine, request(&said));
    assert_eq!((outcome.cached_tokens, outcome.text.is_empty()), (0, false));
}

#[test]
fn damaged_and_foreign_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let bundle = compiled(&["pocket-gemma"], TargetName::Cpu);
    let mut saving = engine(&bundle, 1);
    ask(&mut saving, &mut Vec::new(), "Hello!", &[]);
    let path = at.join("chat.seq");
    saving.save(0, &path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        bytes
    };
    let check =
        |change: &dyn Fn(&mut Vec<u8>), expected: Expect| check_refused(&bundle, at, &changed(change), expected);
    check(&|bytes| bytes.clear(), expect!["changed.seq is no saved conversation"]);
    check(&|bytes| bytes[0] ^= 1, expect!["changed.seq is no saved conversation"]);
    check(
        &|bytes| bytes[8] = 9,
        expect!["changed.seq has version 9 of saved conversations, this program reads 1; start the conversation anew"],
    );
    check(
        &|bytes| bytes[20] ^= 1,
        expect![
            "changed.seq was saved with another model or for another device; open the bundle that it was saved with"
        ],
    );
    // Lengths are compared before anything is allocated for them.
    check(
        &|bytes| bytes[76..80].fill(255),
        expect!["the saved conversation changed.seq is damaged: 4294967295 positions are too many; delete it"],
    );
    check(
        &|bytes| bytes[84..92].fill(255),
        expect!["the saved conversation changed.seq is damaged: its parts are too long; delete it"],
    );
    check(
        &|bytes| bytes[92..100].fill(255),
        expect!["the saved conversation changed.seq is damaged: its parts are too long; delete it"],
    );
    let error = {
        let path = at.join("changed.seq");
        std::fs::write(&path, changed(&|bytes| bytes[100..108].fill(255))).unwrap();
        engine(&bundle, 1).restore(0, &path).unwrap_err().to_string()
    };
    assert!(error.contains("bytes of states, not 18446744073709551615"), "{error}");
    // Cut anywhere.
    for length in [50, 107, 108, 200, whole.len() / 2, whole.len() - 1] {
        let path = at.join("cut.seq");
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = engine(&bundle, 1).restore(0, &path).unwrap_err();
        assert!(matches!(error, dwindle_runtime::Error::Saved(_)), "{error:?}");
    }
    // Changed anywhere behind the header: positions, states, hash.
    check(
        &|bytes| bytes[110] ^= 1,
        expect![
            "the saved conversation changed.seq is damaged: its positions do not have the hash that they had; delete it"
        ],
    );
    check(
        &|bytes| *bytes.iter_mut().rev().nth(5000).unwrap() ^= 1,
        expect!["the saved conversation changed.seq is damaged: it does not have the hash that it had; delete it"],
    );
    check(
        &|bytes| *bytes.last_mut().unwrap() ^= 1,
        expect!["the saved conversation changed.seq is damaged: it does not have the hash that it had; delete it"],
    );
    // Another model's, and what is not there.
    let other = compiled(&["pocket-llava"], TargetName::Cpu);
    check_refused(
        &other,
        at,
        &whole,
        expect![
            "changed.seq was saved with another model or for another device; open the bundle that it was saved with"
        ],
    );
    assert!(saving.restore(0, at).is_err());
    let error = saving.restore(1, &path).unwrap_err().to_string();
    assert_eq!(error, "there is no saved conversation 1: the engine has 1, counted from 0");
    assert!(saving.save(0, &at.join("nowhere/chat.seq")).is_err());
}
