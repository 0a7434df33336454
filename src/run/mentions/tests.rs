//! Messages as people write them, and as terminals and file managers drop paths into them.

use super::*;

const FILES: &[&str] = &[
    "cat.png",
    "dog.jpg",
    "photo.heic",
    "scan.PDF",
    "shot.jfif",
    "猫.png",
    "été à Paris.webp",
    "my pictures/red ball.jpg",
    "/home/ana/a b.webp",
    "/home/ana/dog.JPG",
    "/home/ana/photo",
    "/home/ana/猫 (1).png",
    "it's.png",
    "a (1).png",
    "example.com",
    "example.com/cat.png",
    "draft.png",
];

fn found_in(message: &str) -> Mentions {
    find(message, Some(Path::new("/home/ana")), |path| FILES.iter().any(|file| Path::new(file) == path))
}

#[track_caller]
fn check(message: &str, text: &str, found: &[&str], missing: &[&str]) {
    let expected = Mentions {
        message: text.to_owned(),
        found: found.iter().map(PathBuf::from).collect(),
        missing: missing.iter().map(|&m| m.to_owned()).collect(),
        addresses: Vec::new(),
    };
    assert_eq!(found_in(message), expected, "{message}");
}

#[test]
fn bare_paths() {
    check("hello there", "hello there", &[], &[]);
    check("what is in cat.png?", "what is in?", &["cat.png"], &[]);
    check("cat.png what is this", "what is this", &["cat.png"], &[]);
    check("cat.png", "", &["cat.png"], &[]);
    check("cat.png?!", "", &["cat.png"], &[]);
    check("see my pictures/red ball.jpg now", "see now", &["my pictures/red ball.jpg"], &[]);
    check("~/dog.JPG and ~/a b.webp", "and", &["/home/ana/dog.JPG", "/home/ana/a b.webp"], &[]);
    check("don't show it's.png", "don't show", &["it's.png"], &[]);
    check("what about dog.png?", "what about dog.png?", &[], &["dog.png"]);
    check("compare cat.png, dog.jpg; and tell me", "compare and tell me", &["cat.png", "dog.jpg"], &[]);
    check("cat.png, what is it?", "what is it?", &["cat.png"], &[]);
    check("is cat.png like cat.png?", "is like?", &["cat.png"], &[]);
    check("look at été à Paris.webp!", "look at!", &["été à Paris.webp"], &[]);
    check("two\nlines, cat.png\nand more", "two\nlines,\nand more", &["cat.png"], &[]);
    check("@cat.png what is it", "what is it", &["cat.png"], &[]);
    check("image:cat.png", "image:", &["cat.png"], &[]);
    check("  spaces   stay   ", "  spaces   stay   ", &[], &[]);
    check("the file a (1).png here", "the file here", &["a (1).png"], &[]);
}

#[test]
fn enclosed_paths() {
    check("Describe (cat.png)", "Describe", &["cat.png"], &[]);
    check("Describe [cat.png].", "Describe.", &["cat.png"], &[]);
    check("Describe <cat.png>, {dog.jpg}", "Describe", &["cat.png", "dog.jpg"], &[]);
    check("Describe (cat.png and dog.jpg)", "Describe (and)", &["cat.png", "dog.jpg"], &[]);
    check("look: \"my pictures/red ball.jpg\" nice", "look: nice", &["my pictures/red ball.jpg"], &[]);
    check("look 'my pictures/red ball.jpg'", "look", &["my pictures/red ball.jpg"], &[]);
    check("look `my pictures/red ball.jpg`", "look", &["my pictures/red ball.jpg"], &[]);
    for quoted in [
        "„cat.png“",
        "“cat.png”",
        "‘cat.png’",
        "«cat.png»",
        "« cat.png »",
        "»cat.png«",
        "‹cat.png›",
        "**cat.png**",
        "(`cat.png`)",
    ] {
        check(&format!("Was zeigt {quoted}?"), "Was zeigt?", &["cat.png"], &[]);
    }
    check("![a cat](cat.png) what breed?", "what breed?", &["cat.png"], &[]);
    check("![a cat](cat.png \"My cat\") what breed?", "what breed?", &["cat.png"], &[]);
    check("![](<my pictures/red ball.jpg>)", "", &["my pictures/red ball.jpg"], &[]);
    check("see [my cat](cat.png) here", "see [my cat] here", &["cat.png"], &[]);
    check("compare \"no such.png\" cat.png", "compare \"no such.png\"", &["cat.png"], &["no such.png"]);
    check("„nirgends da.png“", "„nirgends da.png“", &[], &["nirgends da.png"]);
}

#[test]
fn beside_scripts_without_spaces() {
    check("请描述 cat.png。", "请描述。", &["cat.png"], &[]);
    check("请描述cat.png这张图", "请描述这张图", &["cat.png"], &[]);
    check("描述猫.png！", "描述！", &["猫.png"], &[]);
    check("「cat.png」を説明して", "を説明して", &["cat.png"], &[]);
    check("『猫.png』（cat.png）、dog.jpg：什么？", "什么？", &["猫.png", "cat.png", "dog.jpg"], &[]);
    check("cat.png를 설명해 줘", "를 설명해 줘", &["cat.png"], &[]);
    check("请看 狗.png。", "请看 狗.png。", &[], &["狗.png"]);
}

#[test]
fn escaped_and_dropped_paths() {
    check(r"see my\ pictures/red\ ball.jpg now", "see now", &["my pictures/red ball.jpg"], &[]);
    check(r"see a\ \(1\).png", "see", &["a (1).png"], &[]);
    check(r"'it'\''s.png' please", "please", &["it's.png"], &[]);
    check(r"it\'s.png", "", &["it's.png"], &[]);
    check("'/home/ana/a b.webp' '/home/ana/dog.JPG' ", "", &["/home/ana/a b.webp", "/home/ana/dog.JPG"], &[]);
    check("file:///home/ana/dog.JPG", "", &["/home/ana/dog.JPG"], &[]);
    check("what is file:///home/ana/a%20b.webp?", "what is?", &["/home/ana/a b.webp"], &[]);
    check("file://localhost/home/ana/%E7%8C%AB%20(1).png", "", &["/home/ana/猫 (1).png"], &[]);
    check("see file:///home/ana/photo.", "see.", &["/home/ana/photo"], &[]);
    check(
        "file:///home/ana/a%20b.webp\nfile:///home/ana/dog.JPG\n",
        "",
        &["/home/ana/a b.webp", "/home/ana/dog.JPG"],
        &[],
    );
    check(
        "see file:///home/ana/no%20cat.png",
        "see file:///home/ana/no%20cat.png",
        &[],
        &["file:///home/ana/no%20cat.png"],
    );
}

#[test]
fn other_formats() {
    check("Describe photo.heic", "Describe", &["photo.heic"], &[]);
    check("Describe shot.jfif", "Describe", &["shot.jfif"], &[]);
    check("Summarize scan.PDF", "Summarize", &["scan.PDF"], &[]);
    check("Describe IMG_1.HEIC and x.avif", "Describe IMG_1.HEIC and x.avif", &[], &["IMG_1.HEIC", "x.avif"]);
    // Documents are mentioned for other reasons, too.
    check("Write a report.pdf", "Write a report.pdf", &[], &[]);
}

#[test]
fn what_is_no_mention() {
    for message in [
        "what is a .png file?",
        "is .png better than .jpg?",
        "PNG/JPG or .jpeg/.png?",
        "delete *.png and {a,b}.jpg",
        "What does `Image.open(\"x.png\")` do?",
        "img = cv2.imread('x.png')",
        "<img src=\"logo.png\" alt='a'>",
        "background: url(logo.png);",
        "files = [\"a.png\", \"b.png\"]",
        "{\"file\": \"a.png\"}",
        "explain `convert a.png b.jpg`",
        "explain\n```\nopen a.png\n```\nplease",
        "explain ```cp cat.png b.png``` and `cp cat.png x/`",
        "cat.png.zip, cat.png_old, cat.png-old and cat.pngs",
        "I use Node.js, e.g. v1.2",
        "…",
        "",
    ] {
        check(message, message, &[], &[]);
    }
    // Alone between backticks, it is a name.
    check("Describe `x.png`", "Describe `x.png`", &[], &["x.png"]);
    check("Describe (nowhere.png).", "Describe (nowhere.png).", &[], &["nowhere.png"]);
}

#[test]
fn addresses_of_the_web() {
    for (message, addresses) in [
        ("open https://example.com/logo.gif please", &["https://example.com/logo.gif"][..]),
        ("看https://example.org/a/b.png?size=2", &["https://example.org/a/b.png"]),
        ("(http://x/cat.png)", &["http://x/cat.png"]),
        ("https://x.org/y?file=cat.png", &["https://x.org/y?file=cat.png"]),
        ("www.example.net/cat.png", &["www.example.net/cat.png"]),
        ("sub.example.org/cat.png", &["sub.example.org/cat.png"]),
        ("https://example.com/paper.pdf", &[]),
    ] {
        let mentions = found_in(message);
        assert_eq!(mentions.message, message);
        assert_eq!(mentions.addresses, addresses, "{message}");
        assert!(mentions.found.is_empty() && mentions.missing.is_empty(), "{message}");
    }
    check("example.com/cat.png", "", &["example.com/cat.png"], &[]);
    check("my.pictures/cat.png", "my.pictures/cat.png", &[], &["my.pictures/cat.png"]);
}

/// Long messages cost no more than a bounded number of looks at the disk for each name.
#[test]
fn long_messages() {
    let looks = std::cell::Cell::new(0);
    let message = format!("{} nowhere.png", "word ".repeat(100_000));
    let mentions = find(&message, None, |_| {
        looks.set(looks.get() + 1);
        false
    });
    assert_eq!(mentions.missing, ["nowhere.png"]);
    assert!(looks.get() < 1000, "{}", looks.get());
}

/// Whatever is typed: nothing panics, and a message that names nothing stays as it is.
#[test]
fn any_text() {
    const PIECES: &[&str] = &[
        "cat.png",
        "dog.jpg",
        "nowhere.gif",
        ".png",
        "x.heic",
        "猫.png",
        "été à Paris.webp",
        "a (1).png",
        "file://",
        "file:///",
        "https://",
        "example.com/",
        "/home/ana/",
        "%20",
        "%",
        "\\",
        "\\ ",
        "'",
        "\"",
        "`",
        "```",
        "(",
        ")",
        "[",
        "](",
        "![",
        "<",
        ">",
        "„",
        "“",
        "«",
        " »",
        "「",
        "」",
        "。",
        "，",
        " ",
        "  ",
        "\n",
        "\t",
        "\0",
        "\u{1b}",
        "@",
        "~",
        "~/",
        ":",
        "=",
        "*",
        ".",
        "!",
        "?",
        "é",
        "猫",
    ];
    let mut state = 1u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for _ in 0..5_000 {
        let message: String = (0..next(12)).map(|_| PIECES[next(PIECES.len())]).collect();
        let mentions = found_in(&message);
        assert!(!mentions.found.is_empty() || mentions.message == message, "{message:?}");
        assert!(mentions.missing.iter().chain(&mentions.addresses).all(|name| message.contains(name.as_str())));
    }
}
