//! Pictures: every way to send one, and what is refused.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::server::{Running, Setup, start};

const PNG: &[u8] = include_bytes!("../../../demo/images/01-square-96.png");

fn url(media_type: &str, bytes: &[u8]) -> String {
    format!("data:{media_type};base64,{}", STANDARD.encode(bytes))
}

fn shown(server: &Running, part: Value, stream: bool) -> super::client::Reply {
    let content = json!([{ "type": "text", "text": "say seen" }, part]);
    // The order stands in the last line.
    let content = json!([part_of(&content, 1), { "type": "text", "text": "\nsay seen" }]);
    server.post(
        "/v1/chat/completions",
        &json!({ "messages": [{ "role": "user", "content": content }], "stream": stream }),
    )
}

fn part_of(content: &Value, at: usize) -> Value {
    content[at].clone()
}

/// The smallest BMP: one pixel of 24 bits.
fn bmp() -> Vec<u8> {
    let mut bytes = b"BM".to_vec();
    bytes.extend(58u32.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(54u32.to_le_bytes());
    bytes.extend(40u32.to_le_bytes());
    bytes.extend(1i32.to_le_bytes());
    bytes.extend(1i32.to_le_bytes());
    bytes.extend([1, 0, 24, 0]);
    bytes.extend([0; 24]);
    bytes.extend([1, 2, 3, 0]);
    bytes
}

/// The smallest GIF: one pixel.
fn gif() -> Vec<u8> {
    let mut bytes = b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff".to_vec();
    bytes.extend(b"\x2c\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0\x3b");
    bytes
}

#[test]
fn pictures_reach_the_engine() {
    let server = start();
    let text = url("image/png", PNG);
    for part in [
        json!({ "type": "image_url", "image_url": { "url": text, "detail": "low" } }),
        json!({ "type": "image_url", "image_url": text }),
        json!({ "type": "input_image", "image_url": text }),
        // What it says it is does not matter.
        json!({ "type": "image_url", "image_url": { "url": url("image/jpeg", PNG) } }),
    ] {
        let reply = shown(&server, part, false);
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.json()["dwindle"]["descriptions"], json!(["picture 0"]));
        assert!(server.seen.prompts.lock().unwrap().last().unwrap().contains("[96x96]"));
    }
    for bytes in [bmp(), gif()] {
        let reply = shown(&server, json!({ "type": "image_url", "image_url": url("", &bytes) }), false);
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert!(server.seen.prompts.lock().unwrap().last().unwrap().contains("[1x1]"));
    }
}

#[test]
fn the_description_is_told_as_it_comes() {
    let server = start();
    let (progress, data) =
        shown(&server, json!({ "type": "image_url", "image_url": url("image/png", PNG) }), true).events();
    let phases: Vec<&str> = progress.iter().filter_map(|event| event["phase"].as_str()).collect();
    assert_eq!(phases, ["describing", "described", "prefill"]);
    assert_eq!(progress[0], json!({ "phase": "describing", "picture": 1, "pictures": 1 }));
    assert_eq!(
        progress[1],
        json!({ "phase": "described", "picture": 1, "pictures": 1, "text": "picture 0", "cached": false })
    );
    assert_eq!(data[data.len() - 2]["dwindle"]["descriptions"], json!(["picture 0"]));
}

#[test]
fn what_is_no_picture_is_named() {
    let server = start();
    let heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic".as_slice();
    let avif = b"\0\0\0\x18ftypavif\0\0\0\0mif1avif".as_slice();
    for (url, code, words) in [
        (url("image/heic", heic), "invalid_image", "HEIC"),
        (url("image/avif", avif), "invalid_image", "AVIF"),
        (url("application/pdf", b"%PDF-1.7 and so on"), "invalid_image", "PDF"),
        (url("image/png", b"hello, this is a text"), "invalid_image", "it looks like text"),
        ("data:image/png;base64,%%%".to_owned(), "invalid_image_url", "base64"),
        ("data:image/png,abc".to_owned(), "invalid_image_url", "base64"),
        ("file:///etc/passwd".to_owned(), "invalid_image_url", "file:"),
        ("ftp://example.org/a.png".to_owned(), "invalid_image_url", "data:image"),
        ("cat.png".to_owned(), "invalid_image_url", "data:image"),
        ("http://example.org/a.png".to_owned(), "image_url_refused", "--allow-image-urls"),
        ("https://example.org/a.png".to_owned(), "image_url_refused", "--allow-image-urls"),
    ] {
        // In a stream as well, before it begins.
        for stream in [false, true] {
            let reply = shown(&server, json!({ "type": "image_url", "image_url": { "url": url } }), stream);
            let (status, told, param, message) = reply.error();
            assert_eq!((status, told.as_str()), (400, code), "{url}: {message}");
            assert!(message.contains(words), "{url}: {message}");
            assert_eq!(param, "messages[0].content[0].image_url.url");
        }
    }
    // One that begins like a picture, and is broken.
    let (status, code, _, message) =
        shown(&server, json!({ "type": "image_url", "image_url": url("", &PNG[..60]) }), false).error();
    assert_eq!((status, code.as_str()), (400, "invalid_image"), "{message}");
    let (_, data) = shown(&server, json!({ "type": "image_url", "image_url": url("", &PNG[..60]) }), true).events();
    assert_eq!(data[0]["error"]["code"], "invalid_image");
}

#[test]
fn only_people_show_pictures_and_not_too_many() {
    let server = start();
    let part = json!({ "type": "image_url", "image_url": url("", PNG) });
    let post = |messages: Value| server.post("/v1/chat/completions", &json!({ "messages": messages })).error();
    assert!(post(json!([{ "role": "system", "content": [part] }])).3.contains("role `user`"));
    let many: Vec<Value> = std::iter::repeat_n(part, 33).collect();
    assert!(post(json!([{ "role": "user", "content": many }])).3.contains("33 pictures"));
}

#[test]
fn models_without_eyes_say_so() {
    let info = crate::serve::engine::Info { sees: false, ..super::toy::info() };
    let server = Setup { info, ..Setup::default() }.start();
    let (status, code, ..) = shown(&server, json!({ "type": "image_url", "image_url": url("", PNG) }), false).error();
    assert_eq!((status, code.as_str()), (400, "pictures_not_supported"));
    assert_eq!(server.get("/dwindle/info").json()["picture_formats"], json!([]));
}

#[test]
fn addresses_of_this_machine_are_not_fetched() {
    let server = Setup { fetches: true, ..Setup::default() }.start();
    let port = server.address.port();
    for host in ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"] {
        let url = format!("http://{host}:{port}/v1/models");
        let (status, code, _, message) =
            shown(&server, json!({ "type": "image_url", "image_url": url }), false).error();
        assert_eq!((status, code.as_str()), (400, "invalid_image_url"), "{host}: {message}");
        assert!(!message.contains("toy"), "{message}");
    }
}
