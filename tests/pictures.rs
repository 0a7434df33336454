//! Pictures in messages, from the command line: named in many ways, missing, of other formats, no files at all, several.

use std::io::Write;
use std::process::{Output, Stdio};

use crate::workbench::{Dwindle, root};

const CAPTION: &str =
    "A red cross at the top, a pink triangle in the center and an orange star at the bottom, on a black background.";

/// The demo's seeing model as `b.dwindle`, and a picture as `cat.png`.
fn seeing() -> Dwindle {
    let dwindle = Dwindle::new();
    let model = root().join("demo/packed/pocket-llava").display().to_string();
    dwindle.run(&["compile", &model, "--target", "cpu", "-o", "b.dwindle"]);
    std::fs::copy(root().join("demo/images/01-square-96.png"), dwindle.path("cat.png")).unwrap();
    dwindle
}

fn say(dwindle: &Dwindle, bundle: &str, lines: &str) -> (String, String) {
    let mut command = dwindle.command(&["run", bundle, "--temperature", "0"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output: Output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

/// However it is named, the model is shown the picture: what it says of it cannot be guessed.
#[test]
fn named_in_many_ways() {
    let dwindle = seeing();
    let folder = dwindle.path("my pictures (new)");
    std::fs::create_dir(&folder).unwrap();
    for name in ["it's 猫.PNG", "shot.jfif"] {
        std::fs::copy(dwindle.path("cat.png"), folder.join(name)).unwrap();
    }
    let absolute = folder.display().to_string();
    let lines = [
        "Describe the image. (cat.png)".to_owned(),
        "Describe the image: [cat.png].".to_owned(),
        "Describe the image „cat.png“".to_owned(),
        "Describe the image `cat.png`.".to_owned(),
        "![x](cat.png) Describe the image.".to_owned(),
        "Describe the image. cat.png".to_owned(),
        "cat.png。".to_owned(),
        format!("Describe the image. '{absolute}/it'\\''s 猫.PNG'"),
        "Describe the image. my pictures (new)/shot.jfif".to_owned(),
        format!("file://{}/it%27s%20%E7%8C%AB.PNG", absolute.replace(' ', "%20").replace('(', "%28")),
        "/image \"my pictures (new)/shot.jfif\"\nDescribe the image.".to_owned(),
    ];
    let (out, err) = say(&dwindle, "b.dwindle", &lines.join("\n/reset\n"));
    assert_eq!(out.lines().count(), lines.len(), "{out}\n{err}");
    for (line, answer) in lines.iter().zip(out.lines()) {
        assert_eq!(answer, CAPTION, "to {line}");
    }
}

#[test]
fn in_a_prompt() {
    let dwindle = seeing();
    let ask = |prompt: &str| dwindle.run(&["run", "b.dwindle", "--temperature", "0", "-p", prompt]);
    assert_eq!(ask("Describe the image. \"cat.png\""), format!("{CAPTION}\n"));
    assert_eq!(ask("cat.png"), format!("{CAPTION}\n"));
    // The same picture twice is one.
    let json =
        dwindle.run(&["run", "b.dwindle", "--image", "cat.png", "-p", "Describe the image. (./cat.png)", "--json"]);
    assert!(json.contains(CAPTION), "{json}");
    let told = dwindle.fail(&["run", "b.dwindle", "-p", "Compare nowhere.png with \"no cat.heic\""]);
    assert_eq!(told.lines().next(), Some("exit code 3"));
    assert!(told.contains("cannot find the pictures nowhere.png, no cat.heic; relative paths start at"), "{told}");
    // A text to be continued is taken as it is.
    dwindle.run(&["run", "b.dwindle", "--raw", "--max-tokens", "1", "-p", "nowhere.png"]);
}

/// What is not there, or cannot be read, is said; a description of it is never invented.
#[test]
fn what_cannot_be_shown() {
    let dwindle = seeing();
    std::fs::create_dir(dwindle.path("folder.png")).unwrap();
    std::fs::write(dwindle.path("empty.gif"), "").unwrap();
    std::fs::write(dwindle.path("text.bmp"), "no picture").unwrap();
    std::fs::write(dwindle.path("photo.heic"), b"\0\0\0\x18ftypheic\0\0\0\0mif1heic").unwrap();
    std::fs::write(dwindle.path("raw.NEF"), b"\x01\x02\x03\x04").unwrap();
    std::fs::write(dwindle.path("drawing.svg"), "<svg xmlns='x'></svg>").unwrap();
    std::fs::write(dwindle.path("paper.pdf"), "%PDF-1.7").unwrap();
    for (line, expected) in [
        ("Describe nowhere.png", "cannot find the picture nowhere.png"),
        ("Describe 狗.webp。", "cannot find the picture 狗.webp"),
        ("Describe folder.png", "folder.png is a directory; name a picture in it"),
        ("Describe empty.gif", "empty.gif is empty"),
        ("Describe text.bmp", "cannot use the picture text.bmp"),
        ("Describe (photo.heic)", "photo.heic is a HEIC photo, which Dwindle cannot read; convert it to JPEG or PNG"),
        ("Describe raw.NEF", "raw.NEF is a raw photo, which Dwindle cannot read; convert it to JPEG or PNG"),
        ("Describe drawing.svg", "drawing.svg is an SVG drawing, which Dwindle cannot read"),
        ("Summarize paper.pdf", "paper.pdf is a PDF document, which Dwindle cannot read"),
    ] {
        let (out, err) = say(&dwindle, "b.dwindle", &format!("{line}\n"));
        assert_eq!(out, "", "to {line}");
        assert!(err.contains(expected) && err.contains("The message was not sent"), "{line}: {err}");
    }
    let (out, err) = say(&dwindle, "b.dwindle", "what is a .png file?\nopen https://example.com/logo.gif please\n");
    assert_eq!(out.lines().count(), 2, "{out}\n{err}");
    assert!(err.contains("not fetched: https://example.com/logo.gif"), "{err}");
}

/// Devices and pipes never end, or wait forever: nothing is read of them.
#[cfg(unix)]
#[test]
fn what_is_no_file() {
    let dwindle = seeing();
    let made = std::process::Command::new("mkfifo").arg(dwindle.path("pipe.png")).status().unwrap();
    assert!(made.success());
    let _socket = std::os::unix::net::UnixListener::bind(dwindle.path("socket.png")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", dwindle.path("zero.png")).unwrap();
    for (path, expected) in [
        ("/dev/zero", "is a device"),
        ("zero.png", "is a device"),
        ("pipe.png", "is a pipe"),
        ("socket.png", "is a socket"),
        ("/proc/self/status", "is empty"),
        ("/proc/self", "is a directory"),
    ] {
        let started = std::time::Instant::now();
        let told = dwindle.fail(&["run", "b.dwindle", "-p", "x", "--image", path]);
        assert!(told.starts_with("exit code 3\n") && told.contains(expected), "{path}: {told}");
        assert!(started.elapsed().as_secs() < 20, "{path}");
    }
    let huge = std::fs::File::create(dwindle.path("huge.png")).unwrap();
    huge.set_len(1 << 40).unwrap();
    let told = dwindle.fail(&["run", "b.dwindle", "-p", "x", "--image", "huge.png"]);
    assert!(told.contains("huge.png has 1048576 MiB; pictures of up to 256 MiB are read"), "{told}");
}

/// A model that sees no pictures answers whatever names files.
#[test]
fn models_without_eyes() {
    let dwindle = Dwindle::new();
    let model = root().join("demo/packed/pocket-gemma").display().to_string();
    dwindle.run(&["compile", &model, "--target", "cpu", "-o", "g.dwindle"]);
    std::fs::copy(root().join("demo/images/01-square-96.png"), dwindle.path("cat.png")).unwrap();
    let lines = "How do I convert a.png to a.jpg?\nopen https://example.com/logo.gif please\nWhat is in cat.png?\n/image cat.png\n";
    let (out, err) = say(&dwindle, "g.dwindle", lines);
    assert_eq!(out.lines().count(), 3, "{out}\n{err}");
    assert_eq!(err, "This model sees no pictures.\n");
    dwindle.run(&["run", "g.dwindle", "--temperature", "0", "-p", "How do I convert a.png to a.jpg?"]);
}
