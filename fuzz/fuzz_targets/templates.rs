//! Chat templates: read, tried out, and a conversation rendered.

#![no_main]

use std::time::UNIX_EPOCH;

use dwindle_runtime::template::{Message, Role, Template};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|source: &str| {
    let tokens = [("bos_token".to_owned(), "<s>".to_owned()), ("eos_token".to_owned(), "</s>".to_owned())].into();
    for placeholder in [None, Some("<image>")] {
        let Ok(template) = Template::parse(source, &tokens, placeholder, UNIX_EPOCH) else { continue };
        let said = [Message::new(Role::System, "Be brief."), Message::new(Role::User, "Hello!\nThere?")];
        let _ = template.render(&said, true);
        let answered = [&said[..], &[Message::new(Role::Assistant, "Yes."), Message::new(Role::User, "Bye")]].concat();
        let _ = template.render(&answered, false);
    }
});
