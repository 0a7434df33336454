//! MLC's published weights through the command line: as good as the same model quantized here.

#[path = "../compiler/src/checkpoint/import/mlc/fixture.rs"]
mod fixture;

use dwindle_compiler::checkpoint::ModelDir;
use dwindle_compiler::checkpoint::safetensors::SafeTensors;

use dwindle_runtime::template::{Message, Role, Template};
use expect_test::{Expect, expect};
use serde_json::{Value, json};

use crate::workbench::{Dwindle, root};

#[test]
fn from_published_weights_to_answers() {
    let dwindle = Dwindle::new();
    let checkpoint = root().join("demo/pocket-gemma").display().to_string();
    dwindle.run(&["convert", &checkpoint, "-o", "full"]);
    dwindle.run(&["quantize", "full", "--scheme", "q4f16_1", "-o", "quantized"]);
    let published = dwindle.path("published");
    std::fs::create_dir(&published).unwrap();
    fixture::publish(&ModelDir::open(&dwindle.path("quantized")).unwrap(), "q4f16_1", "ndarray-cache.json", &published);

    let output = dwindle.output(&["convert", "published", "-o", "imported"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && said.contains("packed already (q4f16_1); next: dwindle compile imported"),
        "{said}"
    );
    let mut logits = Vec::new();
    for name in ["quantized", "imported"] {
        let bundle = format!("{name}.dwindle");
        dwindle.run(&["compile", name, "--target", "cpu", "-o", &bundle]);
        dwindle.run(&["logits", &bundle, "--tokens", "2,5,17,60,44,9", "-o", "logits.safetensors"]);
        let file = SafeTensors::open(&dwindle.path("logits.safetensors")).unwrap();
        logits.push(file.tensor("logits").unwrap().to_f32().unwrap());
    }
    // Norms were rounded to f16, and activations are to 8 bits: what is near a half goes either way.
    let range = logits[0].iter().fold(0.0_f32, |greatest, value| greatest.max(value.abs()));
    let difference = logits[0].iter().zip(&logits[1]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    println!("{difference:e} of {range}");
    assert!(difference > 0.0 && difference < 0.03 * range, "{difference} of {range}");

    for source in ["imported.dwindle", "published"] {
        let answer = dwindle.run(&["run", source, "--device", "cpu", "--prompt", "Hello!", "--temperature", "0"]);
        assert_eq!(answer, "Hello! Share an image with me or just chat.\n", "{source}");
    }
    assert!(dwindle.run(&["inspect", "published"]).contains("scheme     q4f16_1 (imported)"));

    let shard = published.join("params_shard_0.bin");
    let mut bytes = std::fs::read(&shard).unwrap();
    bytes[1000] ^= 0x10;
    std::fs::write(&shard, bytes).unwrap();
    let error = dwindle.fail(&["convert", "published", "-o", "damaged"]);
    assert!(error.starts_with("exit code 3\n") && error.contains("params_shard_0.bin has the MD5 sum"), "{error}");
    assert!(!dwindle.path("damaged").exists());
}

/// The prompt that the imported template makes of a conversation, with and without a system message of its own.
fn prompts(conversation: Value) -> String {
    let dwindle = Dwindle::new();
    let checkpoint = root().join("demo/pocket-gemma").display().to_string();
    dwindle.run(&["convert", &checkpoint, "-o", "full"]);
    dwindle.run(&["quantize", "full", "--scheme", "q4f16_1", "-o", "quantized"]);
    let published = dwindle.path("published");
    std::fs::create_dir(&published).unwrap();
    fixture::publish(&ModelDir::open(&dwindle.path("quantized")).unwrap(), "q4f16_1", "tensor-cache.json", &published);
    let edit = |name: &str, edit: &dyn Fn(&mut Value)| {
        let path = published.join(name);
        let mut value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        edit(&mut value);
        std::fs::write(path, value.to_string()).unwrap();
    };
    edit("mlc-chat-config.json", &|chat| chat["conv_template"] = conversation.clone());
    edit("tokenizer_config.json", &|config| drop(config.as_object_mut().unwrap().remove("chat_template")));
    dwindle.run(&["convert", "published", "-o", "imported"]);
    let source = std::fs::read_to_string(dwindle.path("imported/chat_template.jinja")).unwrap();
    let tokens = [("bos_token".to_owned(), "<bos>".to_owned())].into();
    let template = Template::parse(&source, &tokens, None, std::time::UNIX_EPOCH).unwrap();
    let (user, assistant) =
        (|text: &str| Message::new(Role::User, text), |text: &str| Message::new(Role::Assistant, text));
    let turns = [user("One?"), assistant("Two."), user("\"Three\"\\?")];
    let with_system = [&[Message::new(Role::System, "Be brief.")], &turns[..]].concat();
    let render = |messages: &[Message]| template.render(messages, true).unwrap();
    format!("{}\n---\n{}\n", render(&turns), render(&with_system))
}

#[track_caller]
fn check_prompts(conversation: Value, expected: Expect) {
    expected.assert_eq(&prompts(conversation));
}

#[test]
fn conversation_templates() {
    check_prompts(
        json!({"system_template": "{system_message}", "system_message": "", "system_prefix_token_ids": [2],
            "roles": {"user": "<start_of_turn>user", "assistant": "<start_of_turn>model"},
            "role_templates": {"user": "{user_message}", "assistant": "{assistant_message}"},
            "seps": ["<end_of_turn>\n"], "role_content_sep": "\n", "role_empty_sep": "\n"}),
        expect![[r#"
            <bos><start_of_turn>user
            One?<end_of_turn>
            <start_of_turn>model
            Two.<end_of_turn>
            <start_of_turn>user
            "Three"\?<end_of_turn>
            <start_of_turn>model

            ---
            <bos>Be brief.<start_of_turn>user
            One?<end_of_turn>
            <start_of_turn>model
            Two.<end_of_turn>
            <start_of_turn>user
            "Three"\?<end_of_turn>
            <start_of_turn>model

        "#]],
    );
    check_prompts(
        json!({"system_template": "[INST] <<SYS>>\n\n{system_message}<</SYS>>\n\n ", "system_message": "You help.",
            "roles": {"user": "<s>[INST]", "assistant": "[/INST]"}, "seps": [" ", " </s>"],
            "role_content_sep": " ", "role_empty_sep": " ", "add_role_after_system_message": false}),
        expect![[r#"
            [INST] <<SYS>>

            You help.<</SYS>>

             One? [/INST] Two. </s><s>[INST] "Three"\? [/INST] 
            ---
            [INST] <<SYS>>

            Be brief.<</SYS>>

             One? [/INST] Two. </s><s>[INST] "Three"\? [/INST] 
        "#]],
    );
    check_prompts(
        json!({"system_message": "\n", "system_prefix_token_ids": [1], "roles": {"user": "USER", "assistant": "ASSISTANT"},
            "role_templates": {"user": "<{user_message}>{function_string}"},
            "seps": [" "], "role_content_sep": ": ", "role_empty_sep": ":", "add_role_after_system_message": false}),
        expect![[r#"
            <bos>
            <One?> ASSISTANT: Two. USER: <"Three"\?> ASSISTANT:
            ---
            <bos>Be brief.<One?> ASSISTANT: Two. USER: <"Three"\?> ASSISTANT:
        "#]],
    );
}
