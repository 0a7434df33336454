//! Many conversations with one model: what is continued, what is copied, what makes room, and what belongs to a request alone.

use super::*;

/// An engine of toys that saves this many conversations.
fn engine(slots: usize, context: u32, parts: Parts) -> (Engine<Toy>, Rc<RefCell<Memory>>) {
    let toy = Toy::with_slots(context, slots);
    let memory = toy.memory.clone();
    (Engine { talker: Talker::new(toy, parts), describer: None, info: Info::default() }, memory)
}

fn talking(slots: usize) -> (Engine<Toy>, Rc<RefCell<Memory>>) {
    engine(slots, 1024, parts_with(&chat_template()))
}

fn user(text: &str) -> super::super::Message {
    message(super::super::Role::User, text, &[])
}

fn model(text: &str) -> super::super::Message {
    message(super::super::Role::Assistant, text, &[])
}

fn messages(said: &[super::super::Message]) -> Prompt {
    Prompt::Messages { messages: said.to_vec(), tools: Vec::new() }
}

/// Generates, letting the model say `script`, and checks that engine and decoder agree on all sequences.
#[track_caller]
fn generate(
    (engine, memory): &mut (Engine<Toy>, Rc<RefCell<Memory>>),
    request: Request,
    script: &[u32],
) -> Result<Outcome, crate::Error> {
    memory.borrow_mut().script = script.iter().copied().collect();
    let result = engine.generate(request, &mut talker::no_events, &AtomicBool::new(false));
    for (slot, cached) in engine.talker.cached.iter().enumerate() {
        let tokens: Vec<Option<u32>> = cached.slots.iter().map(|slot| slot.token()).collect();
        let rows = memory.borrow_mut().rows_of(slot).clone();
        let held: Vec<Option<u32>> = rows.iter().map(|row| (row.blend.index[0] < 0).then_some(row.token)).collect();
        assert_eq!(held, tokens, "sequence {slot}");
    }
    result
}

/// The tokens of a text, and the end of an answer.
fn script(engine: &Engine<Toy>, text: &str) -> Vec<u32> {
    let mut tokens = engine.tokenizer().encode(text, false).unwrap();
    tokens.push(STOP);
    tokens
}

#[track_caller]
fn say(toys: &mut (Engine<Toy>, Rc<RefCell<Memory>>), said: &mut Vec<super::super::Message>, text: &str) -> Outcome {
    said.push(user(text));
    let script = script(&toys.0, "Yes, it is.");
    let outcome = generate(toys, request(messages(said), 99), &script).unwrap();
    said.push(model(&outcome.text));
    outcome
}

#[test]
fn conversations_that_take_turns_compute_nothing_twice() {
    let mut toys = talking(3);
    let mut chats = [vec![], vec![message(super::super::Role::System, "Be kind.", &[])], vec![]];
    for turn in 0..4 {
        for (number, said) in chats.iter_mut().enumerate() {
            let before: usize = toys.0.talker.cached.iter().map(|cached| cached.slots.len()).sum();
            let outcome = say(&mut toys, said, &format!("Chat {number}, turn {turn}: tell me something."));
            if turn > 0 {
                // All but what is new: the end of the last answer, and the question.
                assert!(outcome.prefill.tokens < 45, "{}", outcome.prefill.tokens);
                assert_eq!(outcome.recomputed, 0);
            }
            let after: usize = toys.0.talker.cached.iter().map(|cached| cached.slots.len()).sum();
            assert_eq!(after - before, outcome.prefill.tokens + outcome.decode.tokens);
        }
    }
    assert_eq!(toys.0.talker.cached.iter().filter(|cached| cached.slots.len() > 60).count(), 3);
}

/// A request that has little in common with a chat leaves it alone; the chat's next turn reads what is new.
#[test]
fn a_title_does_not_evict_its_chat() {
    let mut toys = talking(2);
    let mut said = Vec::new();
    for turn in 0..5 {
        say(&mut toys, &mut said, &format!("Turn {turn}: tell me something about circles and squares."));
    }
    let history = toys.0.talker.cached[0].slots.len();
    // As a message of its own, which quotes the chat; and as one more question.
    let quoted = vec![user("Give this chat a title: I asked about circles, squares and such.")];
    let end = script(&toys.0, "Circles.");
    let title = generate(&mut toys, request(messages(&quoted), 9), &end).unwrap();
    assert!(title.cached_tokens < 10, "{}", title.cached_tokens);
    assert_eq!(toys.0.talker.cached[0].slots.len(), history);
    let mut asked = said.clone();
    asked.push(user("Give this chat a title."));
    let title = generate(&mut toys, request(messages(&asked), 9), &end).unwrap();
    assert!(title.cached_tokens >= history, "{} of {history}", title.cached_tokens);
    // The last answer's end was read with the title's question, and is still there.
    let next = say(&mut toys, &mut said, "And now?");
    assert!(next.cached_tokens >= history && next.prefill.tokens < 30, "{next:?}");
}

/// A conversation that goes on in two ways is copied, if much of it would be thrown away.
#[test]
fn a_branch_is_copied() {
    let mut toys = talking(2);
    let mut said = Vec::new();
    for turn in 0..6 {
        say(&mut toys, &mut said, &format!("Turn {turn}: tell me something about circles and squares."));
    }
    let before = toys.0.talker.cached[0].slots.len();
    let mut branch = said[..4].to_vec();
    let branched = say(&mut toys, &mut branch, "No, about something else.");
    let forks = std::mem::take(&mut toys.1.borrow_mut().forks);
    assert_eq!(forks, [(0, 1, branched.cached_tokens as u32)]);
    assert!(branched.cached_tokens > 40 && branched.recomputed == 0);
    assert_eq!(toys.0.talker.cached[0].slots.len(), before);
    // Both go on, and nothing of either is computed again, nor copied.
    for said in [&mut said, &mut branch] {
        let next = say(&mut toys, said, "And now?");
        assert!(next.recomputed == 0 && next.prefill.tokens < 30, "{next:?}");
    }
    assert!(toys.1.borrow().forks.is_empty());
}

#[test]
fn another_answer_to_the_same_question_reads_one_position() {
    let mut toys = talking(2);
    let mut said = vec![user("What is a circle?")];
    let long = script(&toys.0, &"It is round. ".repeat(40));
    let first = generate(&mut toys, request(messages(&said), 999), &long).unwrap();
    let short = script(&toys.0, "Round.");
    let again = generate(&mut toys, request(messages(&said), 999), &short).unwrap();
    assert_eq!((again.cached_tokens, again.prefill.tokens), (first.prompt_tokens - 1, 1));
    assert!(toys.0.talker.cached[1].slots.is_empty(), "the first answer is not worth a place");
    said.push(model(&again.text));
    assert_eq!(say(&mut toys, &mut said, "And a square?").recomputed, 0);
}

/// The least recently used conversation makes room.
#[test]
fn the_oldest_conversation_makes_room() {
    let mut toys = talking(2);
    let mut chats = [const { Vec::new() }; 3];
    for number in [0, 1, 0, 2] {
        say(&mut toys, &mut chats[number], &format!("Chat {number} begins with this, and goes on."));
    }
    let mut cached = |number: usize| {
        chats[number].push(user("And now?"));
        let prompt = toys.0.talker.cached.iter().map(|cached| cached.slots.len()).collect::<Vec<_>>();
        let end = script(&toys.0, "Yes.");
        let outcome = generate(&mut toys, request(messages(&chats[number]), 9), &end).unwrap();
        (outcome.cached_tokens > 12, prompt.len())
    };
    assert_eq!(cached(0), (true, 2));
    assert_eq!(cached(2), (true, 2));
    assert_eq!(cached(1), (false, 2));
}

/// An answer keeps its tokens where its text comes back, in whatever white space; another text is tokenized.
#[test]
fn answers_are_recognized_by_their_text() {
    let letters = |engine: &Engine<Toy>| -> Vec<u32> {
        let letters = "Hello".chars().flat_map(|c| engine.tokenizer().encode(&c.to_string(), false).unwrap());
        letters.chain([STOP]).collect()
    };
    for (answer, kept) in [("Hello", true), ("\n Hello ", true), ("Hallo", false)] {
        let mut toys = talking(1);
        let (mut said, spelled) = (vec![user("Hi")], letters(&toys.0));
        generate(&mut toys, request(messages(&said), 99), &spelled).unwrap();
        said.extend([model(answer), user("Really?")]);
        let end = script(&toys.0, "Yes.");
        let next = generate(&mut toys, request(messages(&said), 99), &end).unwrap();
        let tokens: Vec<u32> = toys.1.borrow().tokens().into_iter().flatten().collect();
        let holds = tokens.windows(spelled.len()).any(|window| window == spelled);
        assert_eq!((holds, next.recomputed == 0), (kept, kept), "{answer:?}");
    }
}

#[test]
fn a_picture_sent_again_is_not_encoded_again() {
    let (seeing, memory) = seer();
    let mut toys = (seeing.engine, memory);
    let pictures = ["01-square-96.png", "02-landscape-200x120.jpg"].map(picture);
    let ends = |engine: &Engine<Toy>| [engine.tokenizer().encode("A cross.", false).unwrap(), vec![765]].concat();
    let mut said = vec![message(super::super::Role::User, "What?", &pictures[..1])];
    let end = ends(&toys.0);
    let first = generate(&mut toys, request(messages(&said), 99), &end).unwrap();
    assert!(first.encode.tokens > 0 && !toys.1.borrow().tiles.is_empty());
    said.push(model(&first.text));
    // Decoded anew, as a client sends it with each request.
    said[0] = message(super::super::Role::User, "What?", &[picture("01-square-96.png")]);
    said.push(user("Where?"));
    toys.1.borrow_mut().tiles.clear();
    let next = generate(&mut toys, request(messages(&said), 99), &end).unwrap();
    assert_eq!((next.encode.tokens, next.recomputed), (0, 0));
    assert!(toys.1.borrow().tiles.is_empty());
    // Another picture in its place is.
    said[0] = message(super::super::Role::User, "What?", &pictures[1..]);
    let other = generate(&mut toys, request(messages(&said), 99), &end).unwrap();
    assert!(other.encode.tokens > 0 && other.cached_tokens < 10);
}

#[test]
fn stop_texts_end_an_answer_within_tokens() {
    let mut toys = talking(1);
    let said = vec![user("Count.")];
    let text = "one two three four";
    let tokens = script(&toys.0, text);
    for (stop, expected) in [("hree", "one two t"), (" three", "one two"), ("zzz", text), ("two th", "one ")] {
        let request = Request { stop: vec![stop.to_owned(), "never".to_owned()], ..request(messages(&said), 99) };
        let outcome = generate(&mut toys, request, &tokens).unwrap();
        let found = (stop != "zzz").then(|| stop.to_owned());
        assert_eq!(
            (outcome.text.as_str(), outcome.stopped_by, outcome.finish),
            (expected, found, Finish::Stop),
            "{stop}"
        );
        // Its tokens are those before the stop.
        let kept = toys.0.tokenizer().decode(&outcome.tokens).unwrap();
        assert!(text.starts_with(&kept) && kept.len() <= text.find(stop).unwrap_or(text.len()), "{kept}");
    }
}

#[test]
fn likelihoods_come_with_their_text() {
    let mut toys = talking(1);
    let tokens = script(&toys.0, "one two three");
    toys.1.borrow_mut().script = tokens.iter().copied().collect();
    let mut told: Vec<(String, Vec<u32>)> = Vec::new();
    let mut events = |event: Event<'_>| {
        if let Event::Text { text, tokens } = event {
            assert!(tokens.iter().all(|info| info.top.len() == 2 && info.logprob <= 0.0));
            told.push((text.to_owned(), tokens.iter().map(|info| info.token).collect()));
        }
        ControlFlow::Continue(())
    };
    let stop = vec!["three".to_owned()];
    let request = Request { top_logprobs: Some(2), stop, ..request(messages(&[user("Count.")]), 99) };
    let outcome = toys.0.generate(request, &mut events, &AtomicBool::new(false)).unwrap();
    assert_eq!(told.iter().map(|(text, _)| text.as_str()).collect::<String>(), "one two ");
    let all: Vec<u32> = told.into_iter().flat_map(|(_, tokens)| tokens).collect();
    assert_eq!(all, outcome.tokens);
    let bytes: Vec<u8> = all.iter().flat_map(|&token| toys.0.tokenizer().token_bytes(token)).collect();
    assert!("one two ".contains(String::from_utf8(bytes).unwrap().trim()));
}

/// Penalties, bias and mask are a request's; the next one has none of them.
#[test]
fn a_request_draws_in_its_own_way() {
    let mut toys = talking(1);
    let said = vec![user("Hi")];
    let word = toys.0.tokenizer().encode("one", false).unwrap()[0];
    let other = word + 1;
    let biased = Request { logit_bias: vec![(other, 5.0)], ..request(messages(&said), 3) };
    let outcome = generate(&mut toys, biased, &[word; 4]).unwrap();
    assert_eq!((outcome.tokens, outcome.finish), (vec![other; 3], Finish::Length));
    let sampling = Sampling { presence_penalty: 2.0, ..Sampling::default() };
    let outcome = generate(&mut toys, Request { sampling, ..request(messages(&said), 3) }, &[word; 4]).unwrap();
    // Each token once; the next of those that are as likely, 1, ends the answer.
    assert_eq!((outcome.tokens, outcome.finish), (vec![word, 0], Finish::Stop));
    let outcome = generate(&mut toys, request(messages(&said), 3), &[word; 4]).unwrap();
    assert_eq!(outcome.tokens, [word; 3]);
}

/// Allows one token after the other.
struct Only(Vec<u32>, usize);

impl TokenMask for Only {
    fn mask(&mut self, logits: &mut [f32]) -> Result<(), crate::Error> {
        let allowed = self.0.get(self.1).copied();
        let others = logits.iter_mut().enumerate().filter(|(token, _)| Some(*token as u32) != allowed);
        others.for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
        Ok(())
    }

    fn accept(&mut self, token: u32) -> Result<bool, crate::Error> {
        assert_eq!(token, self.0[self.1]);
        self.1 += 1;
        Ok(self.1 == self.0.len())
    }
}

#[test]
fn a_mask_decides_and_ends_the_answer() {
    let mut toys = talking(1);
    let word = toys.0.tokenizer().encode("one", false).unwrap()[0];
    let allowed = toys.0.tokenizer().encode("Yes, it is.", false).unwrap();
    let mask = Some(Box::new(Only(allowed.clone(), 0)) as Box<dyn TokenMask>);
    let outcome = generate(&mut toys, Request { mask, ..request(messages(&[user("Hi")]), 99) }, &[word; 20]).unwrap();
    assert_eq!((outcome.text.as_str(), outcome.finish, outcome.tokens), ("Yes, it is.", Finish::Stop, allowed));
}

#[test]
fn a_prompt_can_be_cancelled_between_chunks() {
    let mut toys = talking(1);
    toys.1.borrow_mut().chunk = 16;
    let said = vec![user(&"word ".repeat(100))];
    let mut seen = Vec::new();
    let mut events = |event: Event<'_>| {
        if let Event::Prefill { done, total, cached } = event {
            seen.push((done, total, cached));
        }
        if seen.len() == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let outcome = toys.0.generate(request(messages(&said), 9), &mut events, &AtomicBool::new(false)).unwrap();
    assert_eq!((outcome.finish, outcome.text.as_str()), (Finish::Cancelled, ""));
    let total = outcome.prompt_tokens;
    assert_eq!(seen, [(16, total, 0), (32, total, 0), (48, total, 0)]);
    assert_eq!(toys.1.borrow().rows.len(), 48);
    // What was read is not read again.
    let end = script(&toys.0, "Yes.");
    assert_eq!(generate(&mut toys, request(messages(&said), 9), &end).unwrap().cached_tokens, 48);
}

/// As transformers gives them to templates.
#[test]
fn tools_and_their_results_reach_the_template() {
    let source = "{% if tools %}<start_of_turn>tools\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}<end_of_turn>\n{% endif %}\
        {% for m in messages %}<start_of_turn>{{ m.role }}\n{{ m.content }}{% if m.tool_calls %}{% for c in m.tool_calls %}\
        {{ c.function.name }}({{ c.function.arguments | tojson }}){% endfor %}{% endif %}\
        {% if m.role == 'tool' %} from {{ m.name }} as {{ m.tool_call_id }}{% endif %}<end_of_turn>\n{% endfor %}<start_of_turn>assistant\n";
    let (engine, _) = engine(1, 1024, parts_with(source));
    assert!(engine.talker.parts.template.as_ref().unwrap().knows_tools());
    assert!(!talking(1).0.talker.parts.template.as_ref().unwrap().knows_tools());
    let arguments = serde_json::json!({ "city": "Bern <end_of_turn>", "days": 2 });
    let call = ToolCall { id: "c1".to_owned(), name: "weather".to_owned(), arguments };
    let asked = super::super::Message { tool_calls: vec![call], ..message(super::super::Role::Assistant, "", &[]) };
    let result = super::super::Message {
        tool_call_id: Some("c1".to_owned()),
        name: Some("weather".to_owned()),
        ..message(super::super::Role::Tool, "sunny", &[])
    };
    let tools = vec![serde_json::json!({ "type": "function", "function": { "name": "weather" } })];
    let prompt = Prompt::Messages { messages: vec![user("Weather?"), asked, result], tools };
    expect![[r#"
        <start_of_turn>tools
        {"type": "function", "function": {"name": "weather"}}
        <end_of_turn>
        <start_of_turn>user
        Weather?<end_of_turn>
        <start_of_turn>assistant
        weather({"city": "Bern < end_of_turn>", "days": 2})<end_of_turn>
        <start_of_turn>tool
        sunny from weather as c1<end_of_turn>
        <start_of_turn>assistant
    "#]]
    .assert_eq(&format!("{}\n", engine.render(&prompt).unwrap()));
}

#[test]
fn prompts_are_counted_as_they_are_read() {
    let mut toys = talking(1);
    let said = vec![user("What is a circle?")];
    let end = script(&toys.0, "Round.");
    let outcome = generate(&mut toys, request(messages(&said), 9), &end).unwrap();
    assert_eq!(toys.0.count(&messages(&said)).unwrap(), outcome.prompt_tokens);
    assert_eq!(toys.0.count(&Prompt::Tokens(vec![1, 2, 3])).unwrap(), 3);
    assert_eq!(
        toys.0.count(&Prompt::Tokens(Vec::new())).unwrap_err().to_string(),
        "no token was given: a prompt needs at least one"
    );
}

/// Engines work on a thread of their own.
#[test]
fn engines_can_be_sent() {
    const fn is_send<T: Send>() {}
    is_send::<Engine>();
}
