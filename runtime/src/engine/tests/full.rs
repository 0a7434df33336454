//! What a chat does when its context is full, and what else people type.

use super::*;

/// Asks with short answers until turns are forgotten.
fn fill(chat: &mut Chat, script: &[u32]) -> usize {
    for turn in 1.. {
        let answer = ask(chat, &format!("Tell me about number {turn} please."), script);
        assert!(turn < 100, "the context never fills");
        if answer.forgotten > 0 {
            assert!(answer.recomputed > 0);
            return turn;
        }
    }
    0
}

#[test]
fn full_contexts_forget_the_oldest_turns() {
    let source = "{% for m in messages %}<start_of_turn>{{ m.role }}\n{{ m.content }}<end_of_turn>\n{% endfor %}\
        <start_of_turn>assistant\n";
    let (mut chat, memory) = chat_of(parts_with(source), 256);
    chat.system("Be kind.");
    let script = said(&chat, "Yes");
    let turn = fill(&mut chat, &script);
    assert!(turn > 3);
    let left = messages(&chat);
    assert_eq!((left[0].role, left[0].text.as_str()), (Role::System, "Be kind."));
    assert_eq!(left[left.len() - 2].text, format!("Tell me about number {turn} please."));
    assert!(memory.borrow().rows.len() <= 128 + script.len(), "half of the context is free");
    // What follows is not computed again, until it is full once more.
    for turn in 0..50 {
        let answer = ask(&mut chat, "And now?", &script);
        assert!(memory.borrow().rows.len() <= 256);
        assert_eq!(answer.recomputed > 0, answer.forgotten > 0, "turn {turn}");
    }
    let whole = chat.parts.template.as_ref().unwrap().render(&messages(&chat), false).unwrap();
    assert!(whole.contains("Be kind."));
}

#[test]
fn a_message_that_is_too_long_is_refused_with_both_numbers() {
    let (mut chat, memory) = chat_of(parts_with(&chat_template()), 40);
    let script = said(&chat, "Yes");
    ask(&mut chat, "Hi", &script);
    let (rows, said_before) = (memory.borrow().rows.clone(), messages(&chat));
    memory.borrow_mut().prefills.clear();
    check_error(
        try_ask(&mut chat, &"word ".repeat(40), &[], &script, 500, None),
        expect![
            "this message takes 90 positions with the instructions and what the chat template puts around it, the context has 40; shorten it, or compile with a longer `--context`"
        ],
    );
    assert_eq!((&memory.borrow().rows, &messages(&chat)), (&rows, &said_before));
    assert!(memory.borrow().prefills.is_empty());
    // An answer that reaches the end of the context ends there, and the chat goes on.
    let endless = vec![script[0]; 100];
    let answer = try_ask(&mut chat, "More", &[], &endless, 500, None).unwrap();
    assert_eq!(answer.finish, Finish::Length);
    assert_eq!(memory.borrow().rows.len(), 40);
    let answer = ask(&mut chat, "And?", &script);
    assert!(answer.forgotten > 0 && answer.text == "Yes");
    // A failure takes nothing from what was said.
    let endless = vec![script[0]; 100];
    try_ask(&mut chat, "More", &[], &endless, 500, None).unwrap();
    let said = chat.said.clone();
    assert!(try_ask(&mut chat, "Again", &[], &[], 500, None).is_err());
    assert_eq!(chat.said, said);
    assert_eq!(ask(&mut chat, "Again", &script).text, "Yes");
    // Whoever may forget nothing is told both numbers.
    chat.said.push(message(super::super::Role::User, "One more", &[]));
    let prompt = Prompt::Messages { messages: chat.said.clone(), tools: Vec::new() };
    let strict = Request { may_forget: false, ..request(prompt, 9) };
    let refused = chat.engine.generate(strict, &mut talker::no_events, &AtomicBool::new(false)).unwrap_err();
    assert!(matches!(refused, crate::Error::Chat(chat::Error::TooLong { context: 40, tokens: 41.. })), "{refused}");
}

#[test]
fn the_last_picture_is_kept() {
    let (mut chat, memory) = seer();
    memory.borrow_mut().context = 256;
    let script = said(&chat, "A red cross.");
    let pictures = [picture("01-square-96.png")];
    try_ask(&mut chat, "First", &[], &script, 99, None).unwrap();
    try_ask(&mut chat, "What is it?", &pictures, &script, 99, None).unwrap();
    fill(&mut chat, &script);
    let left = messages(&chat);
    assert_eq!((left[0].text.as_str(), left[0].pictures), ("What is it?", 1));
    assert_eq!(memory.borrow().rows.iter().filter(|row| row.blend.index[0] >= 0).count(), 78);
    // Where the rest takes too much, it goes with the question.
    let tokenizer = chat.parts.tokenizer.clone();
    let words = |positions: usize| {
        let mut text = String::new();
        while tokenizer.encode(&text, false).unwrap().len() < positions {
            text += "word ";
        }
        text
    };
    let long = words(152);
    assert!(ask(&mut chat, &long, &script).forgotten > 0);
    let left = messages(&chat);
    assert_eq!((left.len(), left[0].text.as_str(), left[0].pictures), (2, long.as_str(), 1));
    // Even that is too much.
    let longer = words(222);
    ask(&mut chat, &longer, &script);
    let left = messages(&chat);
    assert_eq!((left.len(), left[0].text.as_str(), left[0].pictures), (2, longer.as_str(), 0));
    let refused = try_ask(&mut chat, &longer, &pictures, &script, 99, None).unwrap_err();
    assert!(matches!(refused, crate::Error::Chat(chat::Error::TooLong { context: 256, tokens: 300.. })), "{refused}");
}

#[test]
fn placeholders_in_questions_are_text() {
    let (mut chat, memory) = seer();
    let script = said(&chat, "A red cross.");
    let pictures = [picture("01-square-96.png")];
    let answer = try_ask(&mut chat, "What is <image>? <image><image>", &pictures, &script, 99, None).unwrap();
    assert_eq!(answer.encode.tokens, 78);
    let ids: Vec<u32> = memory.borrow().tokens().into_iter().flatten().collect();
    assert_eq!(ids.iter().filter(|&&id| id == 766).count(), 0);
    assert_eq!(ask(&mut chat, "<image>", &script).recomputed, 0);
    assert_eq!(memory.borrow().rows.iter().filter(|row| row.blend.index[0] >= 0).count(), 78);
    // An answer that holds the token itself is no picture either.
    let mut odd = script.clone();
    odd.insert(1, 766);
    ask(&mut chat, "And?", &odd);
    assert_eq!(ask(&mut chat, "And?", &script).recomputed, 0);
    // Texts that are continued have placeholders, as ever.
    expect!["the prompt has 2 places for pictures (`<image>`), but 1 new pictures were given"]
        .assert_eq(&chat.complete("<image> <image>", &pictures).unwrap_err().to_string());
}

/// A model that sees, whose tokenizer begins texts with a token, and a template.
fn with_opening(source: &str) -> (Chat, Rc<RefCell<Memory>>) {
    let (seeing, _) = seer();
    let parsed = Template::parse(source, &[("bos_token".into(), "<bos>".into())].into(), Some("<image>"), UNIX_EPOCH);
    let tokenizer = Tokenizer::from_bytes(&demo("pocket-gemma/tokenizer.json")).unwrap();
    chat_of(
        Parts::new("x", tokenizer, Some((parsed.unwrap(), source)), seeing.parts.image.clone(), vec![1]).unwrap(),
        1024,
    )
}

/// As transformers' processors do it, which tokenizers of text models do not.
#[test]
fn prompts_of_models_that_see_begin_as_their_tokenizer_says() {
    let turns = "{% for m in messages %}{{ 'USER: ' + m.content + ' ASSISTANT:' if m.role == 'user' else m.content }}{% endfor %}";
    for source in [turns.to_owned(), format!("{{{{ bos_token }}}}{turns}")] {
        let (mut chat, memory) = with_opening(&source);
        let end = said(&chat, "Yes");
        for _ in 0..3 {
            assert_eq!(ask(&mut chat, "Hi", &end).recomputed, 0, "{source}");
        }
        let tokens: Vec<u32> = memory.borrow().tokens().into_iter().flatten().collect();
        assert_eq!((tokens[0], tokens.iter().filter(|&&token| token == 2).count()), (2, 1), "{source}");
    }
    let (mut chat, memory) =
        chat_of(parts_with("{% for m in messages %}USER: {{ m.content }} ASSISTANT:{% endfor %}"), 99);
    ask(&mut chat, "Hi", &[40, 1]);
    assert_ne!(memory.borrow().rows[0].token, 2);
}

#[test]
fn answers_end_where_the_template_ends_them() {
    for (source, ends) in [
        ("{{ bos_token }}{% for m in messages %}{{ m.role }} {{ m.content }}<end_of_turn>{% endfor %}X", vec![1, 6]),
        ("{% for m in messages %}{{ m.role }} {{ m.content }}\n<eos>\n{% endfor %}X", vec![1]),
        ("{% for m in messages %}{{ '<start_of_turn>' if m.role == 'user' }}{{ m.content }}{% endfor %}X", vec![1, 5]),
        ("{% for m in messages %}{{ m.role }}: {{ m.content }}\n\n{% endfor %}X", vec![1]),
        ("{% for m in messages %}{{ m.content }}{{ '<end_of_turn>' if loop.last }}{% endfor %}", vec![1, 6]),
    ] {
        let (chat, _) = {
            let tokens = [("bos_token".to_owned(), "<bos>".to_owned())].into();
            chat_of(crate::chat::toy::parts_of(&demo("pocket-gemma/tokenizer.json"), source, &tokens, vec![1]), 99)
        };
        assert_eq!(chat.parts.stop, ends, "{source}");
        assert_eq!(chat.parts.notes.len(), ends.len() - 1);
        if ends.contains(&6) {
            expect![
                "model `talker`: its chat template ends an answer with `<end_of_turn>`, which its configuration does not list as an end (`eos_token_id`); answers end there, too"
            ]
            .assert_eq(&chat.parts.notes[0]);
        }
    }
    assert!(talker().0.parts.notes.is_empty());
}
