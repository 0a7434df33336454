//! Ensembles and single models put together from toys.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use dwindle_bundle::{
    Ensemble, ImageInput, Memory, Model, Plan, Resample, Residency, SamplingDefaults, Text, Tile, Tiling,
};
use expect_test::{Expect, expect};

use super::*;
use crate::chat::toy::{self, Toy, chat_template, demo};
use crate::tokenizer::Tokenizer;

fn model(name: &str, sees: bool) -> Model {
    let text = Text {
        tokenizer: format!("{name}/tokenizer.json"),
        chat_template: Some(format!("{name}/template.jinja")),
        special_tokens: [("bos_token".to_owned(), "<bos>".to_owned())].into(),
        bos: Some(2),
        stop: vec![if sees { 765 } else { 6 }],
    };
    let tile = Tile {
        width: 8,
        height: 8,
        rows: 2,
        columns: 2,
        rescale: 1.0,
        mean: [0.0; 3],
        std: [1.0; 3],
        resample: Resample::Bilinear,
    };
    let image = ImageInput {
        token: 766,
        placeholder: "<image>".into(),
        tile,
        tiling: Tiling::Stretch,
        max_image_rows: 4,
        newline: None,
    };
    Model {
        name: name.into(),
        about: BTreeMap::new(),
        context: 300,
        vocab_size: toy::VOCABULARY as u32,
        hidden_size: 1,
        memory: Memory::default(),
        text: Some(text),
        image: sees.then_some(image),
        sampling: SamplingDefaults::default(),
        plan: Plan::default(),
    }
}

struct Bench {
    conversation: Conversation<Toy>,
    /// How many different pictures there were.
    pictures: u8,
    memories: BTreeMap<String, Rc<RefCell<toy::Memory>>>,
}

fn assemble(models: &[Model], ensemble: Option<&Ensemble>, system: Option<&str>) -> Result<Bench, Error> {
    let memories = RefCell::new(BTreeMap::new());
    let load = |model: &Model, slots: usize, now: bool| {
        let toy = Toy::with_slots(model.context, slots);
        toy.memory.borrow_mut().residence.extend(now.then_some("load"));
        memories.borrow_mut().insert(model.name.clone(), toy.memory.clone());
        Ok(toy)
    };
    let leak = |bytes: Vec<u8>| -> &'static str { String::from_utf8(bytes).unwrap().leak() };
    let text = |name: &str| {
        Ok(match name {
            "seer/tokenizer.json" => leak(demo("pocket-llava/tokenizer.json")),
            "seer/template.jinja" => leak(demo("pocket-llava/chat_template.jinja")),
            "talker/template.jinja" => leak(chat_template().into_bytes()),
            _ => leak(demo("pocket-gemma/tokenizer.json")),
        })
    };
    let options =
        ConversationOptions { system: system.map(str::to_owned), max_tokens: 50, ..ConversationOptions::default() };
    let engine = Engine::assemble(models, ensemble, 1, "a toy", load, text)?;
    Ok(Bench { conversation: Conversation::new(engine, options)?, pictures: 0, memories: memories.into_inner() })
}

fn ensemble() -> Ensemble {
    Ensemble {
        describe: "seer".into(),
        chat: "talker".into(),
        describe_prompt: "Describe the image.".into(),
        handover: "{% for d in descriptions %}Image: {{ d }}\n{% endfor %}{{ message }}".into(),
        residency: Residency::Both,
    }
}

impl Bench {
    fn script(&self, model: &str, texts: &[&str]) {
        let (file, stop) = if model == "seer" { ("pocket-llava", 765) } else { ("pocket-gemma", 6) };
        let tokenizer = Tokenizer::from_bytes(&demo(&format!("{file}/tokenizer.json"))).unwrap();
        let mut script = Vec::new();
        for text in texts {
            script.extend(tokenizer.encode(text, false).unwrap());
            script.push(stop);
        }
        self.memories[model].borrow_mut().script = script.into();
    }

    fn ask(&mut self, message: &str, pictures: usize) -> Result<Turn, Error> {
        let pictures: Vec<Picture> = (0..pictures)
            .map(|_| {
                self.pictures += 1;
                Picture::from_rgb(9, 5, vec![self.pictures; 9 * 5 * 3]).unwrap()
            })
            .collect();
        self.conversation.ask(message, &pictures, &mut |_| (), &AtomicBool::new(false))
    }

    fn read_by(&self, model: &str) -> String {
        let file = if model == "seer" { "pocket-llava" } else { "pocket-gemma" };
        let tokenizer = tokenizers::Tokenizer::from_bytes(demo(&format!("{file}/tokenizer.json"))).unwrap();
        let tokens: Vec<u32> = self.memories[model].borrow().tokens().into_iter().map(|t| t.unwrap_or(766)).collect();
        tokenizer.decode(&tokens, false).unwrap()
    }
}

#[test]
fn one_describes_and_the_other_talks() {
    let mut bench =
        assemble(&[model("talker", false), model("seer", true)], Some(&ensemble()), Some("Be kind.")).unwrap();
    bench.script("seer", &[" A red cross. ", "A blue star."]);
    bench.script("talker", &["I see both."]);
    let turn = bench.ask("What do you see?", 2).unwrap();
    assert_eq!(turn.descriptions, ["A red cross.", "A blue star."]);
    assert_eq!(
        (turn.answer.as_str(), turn.finish, turn.encode.tokens, turn.recomputed),
        ("I see both.", Finish::Stop, 8, 0)
    );
    assert!(turn.describe.tokens > 4 && turn.prefill.tokens > 20);
    expect![[r#"
        <bos><start_of_turn>user
        Be kind.

        Image: A red cross.
        Image: A blue star.
        What do you see?<end_of_turn>
        <start_of_turn>model
        I see both."#]]
    .assert_eq(&bench.read_by("talker"));
    // Each picture has a conversation of its own.
    expect![[r#"
        <|im_start|>user <image><image><image><image>
        Describe the image.<|im_end|><|im_start|>assistant
        A blue star."#]]
    .assert_eq(&bench.read_by("seer"));

    bench.script("talker", &["Red."]);
    let turn = bench.ask("Which color?", 0).unwrap();
    assert!(turn.descriptions.is_empty());
    assert_eq!(turn.recomputed, 0);

    bench.conversation.reset().unwrap();
    bench.script("talker", &["Hello."]);
    bench.ask("Hi", 0).unwrap();
    assert!(!bench.read_by("talker").contains("blue"));
    assert_eq!((bench.conversation.info().models.len(), bench.conversation.info().device.as_str()), (2, "a toy"));
}

/// With `swap`, one of the two has its memory at a time, and the chat's positions stay; answers are the same.
#[test]
fn models_take_turns_in_memory() {
    let swap = Ensemble { residency: Residency::Swap, ..ensemble() };
    let mut bench = assemble(&[model("talker", false), model("seer", true)], Some(&swap), None).unwrap();
    let residence = |bench: &Bench, name: &str| std::mem::take(&mut bench.memories[name].borrow_mut().residence);
    assert_eq!((residence(&bench, "talker"), residence(&bench, "seer")), (vec!["load"], vec![]));
    bench.script("talker", &["Hello."]);
    bench.ask("Hi", 0).unwrap();
    let cached = bench.memories["talker"].borrow().rows.len();
    assert_eq!((residence(&bench, "talker"), residence(&bench, "seer")), (vec!["load"], vec![]));

    bench.script("seer", &["A red cross.", "A blue star."]);
    bench.script("talker", &["I see both."]);
    let turn = bench.ask("What do you see?", 2).unwrap();
    assert_eq!((turn.answer.as_str(), turn.recomputed), ("I see both.", 0));
    assert_eq!(turn.descriptions, ["A red cross.", "A blue star."]);
    assert_eq!(residence(&bench, "talker"), ["unload", "load"]);
    assert_eq!(residence(&bench, "seer"), ["load", "forget"]);
    let memory = bench.memories["talker"].borrow();
    assert!(memory.prefills.last().unwrap() + cached < memory.rows.len() + 1, "the cache was kept");
    drop(memory);

    // A description that fails leaves the chat usable.
    bench.ask("What?", 1).unwrap_err();
    assert_eq!((residence(&bench, "talker"), residence(&bench, "seer")), (vec!["unload"], vec!["load", "forget"]));
    bench.script("talker", &["Fine."]);
    assert_eq!(bench.ask("How are you?", 0).unwrap().answer, "Fine.");
    assert_eq!(residence(&bench, "talker"), ["load"]);
}

#[test]
fn a_cancelled_description_leaves_the_chat_alone() {
    let mut bench = assemble(&[model("talker", false), model("seer", true)], Some(&ensemble()), None).unwrap();
    bench.script("seer", &["A red cross."]);
    let picture = Picture::from_rgb(1, 1, vec![7; 3]).unwrap();
    let turn = bench.conversation.ask("What?", &[picture], &mut |_| (), &AtomicBool::new(true)).unwrap();
    assert_eq!((turn.finish, turn.answer.as_str()), (Finish::Cancelled, ""));
    assert!(bench.memories["talker"].borrow().rows.is_empty());
}

#[test]
fn a_single_model_that_sees_gets_the_pictures_themselves() {
    let mut bench = assemble(&[model("seer", true)], None, None).unwrap();
    assert!(bench.conversation.info().sees);
    bench.script("seer", &["A red cross."]);
    let turn = bench.ask("What?", 1).unwrap();
    assert_eq!((turn.answer.as_str(), turn.encode.tokens, turn.describe), ("A red cross.", 4, Phase::default()));
}

#[track_caller]
fn check_error<T>(result: Result<T, Error>, expected: Expect) {
    expected.assert_eq(&result.map(drop).unwrap_err().to_string());
}

#[test]
fn bundles_that_cannot_talk_say_why() {
    let (talker, seer) = (model("talker", false), model("seer", true));
    let mut bench = assemble(std::slice::from_ref(&talker), None, None).unwrap();
    assert!(!bench.conversation.info().sees);
    check_error(
        bench.ask("What?", 1),
        expect![
            "model `talker` cannot see pictures; bundle it with a model that describes them: `dwindle compile CHAT_MODEL VISION_MODEL`"
        ],
    );
    check_error(
        assemble(&[talker.clone(), seer.clone()], None, None),
        expect![
            "the bundle has several models (talker, seer) but does not say how they work together; compile it anew"
        ],
    );
    check_error(
        assemble(&[talker.clone(), seer], Some(&Ensemble { chat: "other".into(), ..ensemble() }), None),
        expect!["the bundle has no model `other`; it has talker, seer"],
    );
    check_error(
        assemble(&[Model { text: None, ..talker.clone() }], None, None),
        expect![
            "model `talker` has no tokenizer: its checkpoint came without tokenizer.json; add it and compile again"
        ],
    );
    let choice = SamplingChoice { temperature: Some(-1.0), ..SamplingChoice::default() };
    assert_eq!(choice.over(Sampling::default()).temperature, -1.0);
}
