//! What is cached, computed and said, turn by turn, with a decoder that says what it is told to.

mod full;
mod growing;
mod many;

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::UNIX_EPOCH;

use dwindle_bundle::{ImageInput, Resample, Tile, Tiling};
use expect_test::{Expect, expect};

use super::{Engine, Event, Info, Outcome, Prompt, Request, *};
use crate::chat::forget::fit;
use crate::chat::toy::{Memory, Toy, chat_template, demo, parts_with};
use crate::chat::{Finish, Parts};
use crate::sequence::Row;
use crate::template::{Message, Role, Template};
use crate::tokenizer::Tokenizer;

/// Ends an answer.
const STOP: u32 = 6;

/// A person who talks with an engine of toys, and remembers what was said.
struct Chat {
    engine: Engine<Toy>,
    said: Vec<super::Message>,
}

impl Deref for Chat {
    type Target = Talker<Toy>;

    fn deref(&self) -> &Talker<Toy> {
        &self.engine.talker
    }
}

impl DerefMut for Chat {
    fn deref_mut(&mut self) -> &mut Talker<Toy> {
        &mut self.engine.talker
    }
}

fn message(role: super::Role, text: &str, pictures: &[Picture]) -> super::Message {
    let shown = pictures.iter().map(|picture| Part::Picture(Arc::new(picture.clone())));
    let content = shown.chain([Part::Text(text.to_owned())]).collect();
    super::Message { role, content, tool_calls: Vec::new(), tool_call_id: None, name: None }
}

fn request(prompt: Prompt, max_tokens: usize) -> Request {
    Request {
        prompt,
        sampling: Sampling::default(),
        max_tokens: Some(max_tokens),
        stop: Vec::new(),
        top_logprobs: None,
        logit_bias: Vec::new(),
        mask: None,
        may_forget: true,
    }
}

impl Chat {
    fn system(&mut self, text: &str) {
        self.said.insert(0, message(super::Role::System, text, &[]));
    }

    /// Lets the model continue a text.
    fn complete(&mut self, text: &str, pictures: &[Picture]) -> Result<Outcome, crate::Error> {
        let pictures = pictures.iter().cloned().map(Arc::new).collect();
        let request = request(Prompt::Pictured { text: text.to_owned(), pictures }, 9);
        self.engine.generate(request, &mut talker::no_events, &AtomicBool::new(false))
    }
}

fn chat_of(parts: Parts, context: u32) -> (Chat, Rc<RefCell<Memory>>) {
    let toy = Toy::new(context);
    let memory = toy.memory.clone();
    let engine = Engine { talker: Talker::new(toy, parts), describer: None, info: Info::default() };
    (Chat { engine, said: Vec::new() }, memory)
}

fn talker() -> (Chat, Rc<RefCell<Memory>>) {
    chat_of(parts_with(&chat_template()), 1024)
}

/// The demo's describing model without its weights.
fn seer() -> (Chat, Rc<RefCell<Memory>>) {
    let template = String::from_utf8(demo("pocket-llava/chat_template.jinja")).unwrap();
    let sizes = [[96, 96], [96, 192], [96, 288], [192, 96], [192, 192], [288, 96]];
    let tile = Tile {
        width: 96,
        height: 96,
        rows: 6,
        columns: 6,
        rescale: 1.0 / 255.0,
        mean: [0.5; 3],
        std: [0.5; 3],
        resample: Resample::Bicubic,
    };
    let image = ImageInput {
        token: 766,
        placeholder: "<image>".into(),
        tile,
        tiling: Tiling::AnyRes { pinpoints: sizes.to_vec(), max_tiles: Some(9), among_others: Some([127; 3]) },
        max_image_rows: 217,
        newline: Some(216),
    };
    let parsed = Template::parse(&template, &Default::default(), Some("<image>"), UNIX_EPOCH).unwrap();
    let tokenizer = Tokenizer::from_bytes(&demo("pocket-llava/tokenizer.json")).unwrap();
    let parts = Parts::new("seer", tokenizer, Some((parsed, &template)), Some(image), vec![765]).unwrap();
    chat_of(parts, 1024)
}

fn picture(name: &str) -> Picture {
    Picture::decode(&demo(&format!("images/{name}"))).unwrap()
}

/// Asks, letting the model say `script`, and checks that chat and decoder agree on what is cached.
#[track_caller]
fn try_ask(
    chat: &mut Chat,
    text: &str,
    pictures: &[Picture],
    script: &[u32],
    max_tokens: usize,
    cancel_at: Option<&str>,
) -> Result<Outcome, crate::Error> {
    let memory = chat.decoder.memory.clone();
    memory.borrow_mut().script = script.iter().copied().collect();
    let cancel = AtomicBool::new(cancel_at == Some(""));
    let mut streamed = String::new();
    let mut on_text = |piece: &str| {
        streamed += piece;
        if cancel_at.is_some_and(|at| streamed.ends_with(at)) {
            cancel.store(true, Ordering::Relaxed);
        }
    };
    let mut events = |event: Event<'_>| {
        if let Event::Text { text, .. } = event {
            on_text(text);
        }
        ControlFlow::Continue(())
    };
    let before = chat.said.len();
    chat.said.push(message(super::Role::User, text, pictures));
    let prompt = Prompt::Messages { messages: chat.said.clone(), tools: Vec::new() };
    let result = chat.engine.generate(request(prompt, max_tokens), &mut events, &cancel);
    match &result {
        Ok(outcome) if !outcome.tokens.is_empty() => {
            chat.said.push(message(super::Role::Assistant, &outcome.text, &[]));
        }
        _ => chat.said.truncate(before),
    }
    let cached: Vec<Option<u32>> = chat.cached[0].slots.iter().map(|slot| slot.token()).collect();
    assert_eq!(memory.borrow().tokens(), cached);
    if let Ok(answer) = &result {
        assert_eq!(answer.text, streamed);
    }
    result
}

#[track_caller]
fn ask(chat: &mut Chat, text: &str, script: &[u32]) -> Outcome {
    try_ask(chat, text, &[], script, 500, None).unwrap()
}

/// The conversation as a template takes it, without what is forgotten.
fn messages(chat: &Chat) -> Vec<Message> {
    let all = chat.engine.lines(&chat.said, None).unwrap();
    let nothing = |_: &[Line]| Ok(crate::chat::prompt::Prompt { slots: Vec::new(), tail: String::new() });
    let rest = fit(&all, &chat.cached[0].forgotten, (usize::MAX, usize::MAX), nothing).unwrap();
    rest.lines.into_iter().map(|line| line.message).collect()
}

/// The tokens of a text, and the end of an answer.
fn said(chat: &Chat, text: &str) -> Vec<u32> {
    let mut tokens = chat.parts.tokenizer.encode(text, false).unwrap();
    tokens.push(chat.parts.stop[chat.parts.stop.len() - 1]);
    tokens
}

#[track_caller]
fn check_error(result: Result<Outcome, crate::Error>, expected: Expect) {
    expected.assert_eq(&result.unwrap_err().to_string());
}

#[test]
fn demo_chats_are_read_once_and_as_transformers_reads_them() {
    let expected: serde_json::Value = serde_json::from_slice(&demo("chats/expected.json")).unwrap();
    for turns in expected["chats"].as_array().unwrap() {
        let (mut chat, memory) = talker();
        for turn in turns.as_array().unwrap() {
            let ids: Vec<u32> =
                turn["expected_ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
            let before = memory.borrow().rows.len();
            let answer = ask(&mut chat, turn["user"].as_str().unwrap(), &ids);
            assert_eq!(answer.text, turn["expected"].as_str().unwrap());
            assert_eq!((answer.finish, answer.recomputed), (Finish::Stop, 0));
            assert_eq!(answer.decode.tokens, ids.len() - 1);
            // What was cached and what was read now are the whole prompt.
            assert_eq!((before + answer.prefill.tokens) as u64, turn["prompt_tokens"].as_u64().unwrap());
        }
        // Word by word what one long prompt would be.
        let template = chat.parts.template.as_ref().unwrap();
        let whole = template.render(&messages(&chat), false).unwrap();
        let whole = chat.parts.tokenizer.encode(&whole, false).unwrap();
        let cached: Vec<u32> = memory.borrow().tokens().into_iter().flatten().collect();
        assert_eq!(cached, whole[..cached.len()]);
    }
}

#[test]
fn pictures_take_the_places_of_their_placeholders() {
    let (mut chat, memory) = seer();
    let pictures = [picture("01-square-96.png"), picture("02-landscape-200x120.jpg")];
    let script = said(&chat, "A red cross.");
    let answer = try_ask(&mut chat, "Describe the image.", &pictures[..1], &script, 99, None).unwrap();
    assert_eq!((answer.prefill.tokens, answer.encode.tokens, answer.recomputed), (91, 78, 0));
    assert_eq!(memory.borrow().tiles.iter().map(|(tile, _)| *tile).collect::<Vec<_>>(), [0, 1]);
    let rows: Vec<Row> = memory.borrow().rows.iter().filter(|row| row.blend.index[0] >= 0).copied().collect();
    assert_eq!(rows.len(), 78);
    assert_eq!(rows[0].blend.index[0], 0);
    assert_eq!(rows[77].blend.index[0], 216, "the newline after the last row");

    // Text only: the picture is not seen again. The template puts a space after the role that its prompt lacks.
    memory.borrow_mut().tiles.clear();
    let answer = ask(&mut chat, "Where?", &script);
    assert_eq!((answer.encode.tokens, answer.recomputed), (0, 0));
    assert!(memory.borrow().tiles.is_empty() && answer.prefill.tokens < 20);

    // The same one and another at once: each is encoded after the one before it was read, but not twice in a row. Together they are a tile
    // and a newline each, the first one too, which is read again.
    memory.borrow_mut().prefills.clear();
    let (before, script) = (memory.borrow().rows.len(), [script.clone(), script].concat());
    let answer = try_ask(&mut chat, "And these?", &pictures, &script, 3, None).unwrap();
    assert_eq!((answer.encode.tokens, answer.reshown), (3 * 37, 1));
    assert!(answer.recomputed >= 78 && answer.recomputed < before, "{} of {before}", answer.recomputed);
    assert_eq!(memory.borrow().prefills.len(), 2);
    assert_eq!(memory.borrow().tiles.iter().map(|(tile, _)| *tile).collect::<Vec<_>>(), [0, 0]);
    let shown: Vec<Row> = memory.borrow().rows.iter().filter(|row| row.blend.index[0] >= 0).copied().collect();
    assert_eq!(shown.len(), 3 * 37);
    assert!(shown.chunks(37).all(|rows| rows[0].blend.index[0] == 0 && rows[36].blend.index[0] == 216));

    // From then on nothing is read twice.
    memory.borrow_mut().tiles.clear();
    let next = try_ask(&mut chat, "And this?", &pictures[..1], &script, 3, None).unwrap();
    assert_eq!((next.encode.tokens, next.recomputed, next.reshown), (37, 0, 0));
    assert_eq!(memory.borrow().tiles.len(), 1);
}

/// What is cached after pictures came one by one is what a conversation with all of them reads.
#[test]
fn pictures_of_later_turns_count_for_the_earlier_ones() {
    let pictures = ["02-landscape-200x120.jpg", "04-portrait-120x180.png"].map(picture);
    let (mut chat, memory) = seer();
    let script = said(&chat, "A red cross.");
    let mut rows = Vec::new();
    for (number, shown) in pictures.iter().enumerate() {
        let (scripted, before) = ([&script[..number], &script].concat(), rows.len());
        let answer = try_ask(&mut chat, "Look.", std::slice::from_ref(shown), &scripted, 99, None).unwrap();
        assert_eq!(answer.reshown, number);
        assert_eq!(before == 0, answer.recomputed == 0);
        rows = memory.borrow().rows.iter().filter(|row| row.blend.index[0] >= 0).copied().collect();
    }
    let (mut whole, at_once) = seer();
    try_ask(&mut whole, "Look.", &pictures, &[&script[..1], &script].concat(), 99, None).unwrap();
    let expected: Vec<Row> = at_once.borrow().rows.iter().filter(|row| row.blend.index[0] >= 0).copied().collect();
    assert_eq!(rows, expected);
    // The same tiles, too: the two that were read alone came before.
    assert!(memory.borrow().tiles.ends_with(&at_once.borrow().tiles));

    // A question that fails leaves the first picture as it was seen.
    let (mut chat, memory) = seer();
    try_ask(&mut chat, "Look.", &pictures[..1], &script, 99, None).unwrap();
    let before = memory.borrow().rows.clone();
    let long = "word ".repeat(2000);
    assert!(try_ask(&mut chat, &long, &pictures[1..], &script, 99, None).is_err());
    assert_eq!(memory.borrow().rows, before);
    assert_eq!(ask(&mut chat, "Where?", &script).recomputed, 0);
}

#[test]
fn answers_stay_as_they_were_generated() {
    for answer in ["Hello", "  Hello ", "Hello\n\n", " Grüße 👍 "] {
        let (mut chat, memory) = talker();
        // Letter by letter, as the tokenizer would never encode it.
        let mut script: Vec<u32> = Vec::new();
        for letter in answer.chars() {
            script.extend(chat.parts.tokenizer.encode(&letter.to_string(), false).unwrap());
        }
        let generated = script.clone();
        script.push(STOP);
        assert_eq!(ask(&mut chat, "Hi", &script).text, answer);
        let end = said(&chat, "Yes");
        let second = ask(&mut chat, "Really?", &end);
        assert_eq!(second.recomputed, 0, "{answer:?}");
        let cached: Vec<u32> = memory.borrow().tokens().into_iter().flatten().collect();
        let read =
            chat.parts.tokenizer.encode("<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n", false);
        let expected = [read.unwrap(), generated, vec![STOP]].concat();
        assert_eq!(cached[..expected.len()], expected, "{answer:?}");
    }
}

#[test]
fn cancelled_answers_stay_as_far_as_they_came() {
    let (mut chat, memory) = talker();
    let script = said(&chat, "I see a red cross at the top");
    let answer = try_ask(&mut chat, "What?", &[], &script, 500, Some(" red")).unwrap();
    assert_eq!((answer.text.as_str(), answer.finish), ("I see a red", Finish::Cancelled));
    assert_eq!(messages(&chat).last().unwrap().text, "I see a red");
    // The last token was said but not cached; it is read with the next question.
    let script = said(&chat, "Yes");
    let before = memory.borrow().rows.len();
    let next = ask(&mut chat, "Go on", &script);
    assert_eq!(next.recomputed, 0);
    assert_eq!(memory.borrow().rows[before].token, *answer.tokens.last().unwrap());
    assert_eq!(memory.borrow().rows[before + 1].token, STOP);
}

#[test]
fn cancelling_before_the_answer_takes_the_question_back() {
    let (mut chat, memory) = talker();
    let script = said(&chat, "Yes");
    ask(&mut chat, "First", &script);
    let (rows, said_before) = (memory.borrow().rows.clone(), messages(&chat));
    let answer = try_ask(&mut chat, "Second", &[], &script, 500, Some("")).unwrap();
    assert_eq!((answer.finish, answer.text.as_str()), (Finish::Cancelled, ""));
    assert_eq!((&memory.borrow().rows, &messages(&chat)), (&rows, &said_before));
    assert_eq!(ask(&mut chat, "Third", &script).recomputed, 0);
}

#[test]
fn failures_leave_the_conversation_as_it_was() {
    let (mut chat, memory) = talker();
    let script = said(&chat, "Yes it is");
    // Cut short, so that a token is pending.
    try_ask(&mut chat, "First", &[], &script, 2, None).unwrap();
    let said_before = messages(&chat);
    for script in [&script[..0], &script[..2]] {
        check_error(
            try_ask(&mut chat, "Second", &[], script, 500, None),
            expect!["the device was lost during a test: nothing left to say; start again"],
        );
        assert_eq!(messages(&chat), said_before);
        assert!(chat.cached[0].answers[&0].tokens.len() > 1);
    }
    // What was read of the second question is still cached, but for its last position and what was said behind it.
    let before = memory.borrow().rows.len();
    let second = ask(&mut chat, "Second", &script);
    assert_eq!((second.cached_tokens, second.prefill.tokens), (second.prompt_tokens - 1, 1));
    assert_eq!(second.recomputed, before - second.cached_tokens);
}

#[test]
fn templates_that_change_what_was_said_are_read_again_from_there() {
    let source = "{% for m in messages %}<start_of_turn>{{ m.role }}\n\
        {{ m.content.split('###')[-1] }}<end_of_turn>\n{% endfor %}<start_of_turn>assistant\n";
    let (mut chat, memory) = chat_of(parts_with(source), 1024);
    let script = said(&chat, "I think ### Hello");
    ask(&mut chat, "Hi", &script);
    let second = ask(&mut chat, "And now?", &script);
    // The part of the answer that the template drops, and all after it.
    assert_eq!(second.recomputed, script.len() - 1);
    let whole = chat.parts.template.as_ref().unwrap().render(&messages(&chat)[..3], true).unwrap();
    let whole = chat.parts.tokenizer.encode(&whole, false).unwrap();
    let cached: Vec<u32> = memory.borrow().tokens().into_iter().flatten().collect();
    assert_eq!(cached[..whole.len()], whole);
    // A failure after the cut cannot bring back what was cached, but the conversation goes on.
    let before = messages(&chat);
    assert!(try_ask(&mut chat, "Third", &[], &[], 500, None).is_err());
    assert_eq!(messages(&chat), before);
    let third = ask(&mut chat, "Third", &script);
    assert_eq!(third.text, "I think ### Hello");
}

#[test]
fn texts_are_continued_without_a_template() {
    let (mut chat, memory) = talker();
    let script = said(&chat, " there");
    memory.borrow_mut().script = script.iter().copied().collect();
    let answer = chat.complete("Hello", &[]).unwrap();
    assert_eq!(answer.text, " there");
    let tokens = chat.parts.tokenizer.encode("Hello", true).unwrap();
    assert_eq!((answer.prefill.tokens, tokens[0]), (tokens.len(), 2));
    // The same text again is read no further than it must be.
    memory.borrow_mut().script = script.iter().copied().collect();
    assert_eq!(chat.complete("Hello", &[]).unwrap().cached_tokens, tokens.len() - 1);
}

#[test]
fn what_a_model_cannot_do_is_said() {
    let (mut chat, _) = talker();
    check_error(
        try_ask(&mut chat, "x", &[picture("11-small-64x64.png")], &[], 9, None),
        expect![
            "model `talker` cannot see pictures; bundle it with a model that describes them: `dwindle compile CHAT_MODEL VISION_MODEL`"
        ],
    );
    chat.parts.template = None;
    check_error(
        try_ask(&mut chat, "x", &[], &[], 9, None),
        expect!["model `talker` has no chat template, so it cannot chat; `--raw` continues a text"],
    );
}
