//! The files of the page.

use super::File;

macro_rules! files {
    ($($path:literal),* $(,)?) => {
        &[$(File { path: $path, content: include_bytes!($path) }),*]
    };
}

/// All of them, licences of what is not ours included.
pub const FILES: &[File] = files![
    "announcer.js",
    "api.js",
    "archive-dialog.js",
    "archive.js",
    "composer.js",
    "connection.js",
    "conversation.js",
    "copy.js",
    "devices.js",
    "dialog.js",
    "dom.js",
    "events.js",
    "format.js",
    "gauges.js",
    "history.js",
    "icon-180.png",
    "icon-192.png",
    "icon-512.png",
    "icon-maskable-512.png",
    "icon.svg",
    "index.html",
    "intake.js",
    "main.js",
    "manifest.webmanifest",
    "markdown.js",
    "math.js",
    "message.js",
    "pair.css",
    "pair.html",
    "panels.css",
    "settings.js",
    "sources.js",
    "store.js",
    "style.css",
    "theme.js",
    "thread.css",
    "thread.js",
    "turn.js",
    "vendor/dompurify.LICENSE",
    "vendor/marked.LICENSE",
    "vendor/marked.esm.js",
    "vendor/purify.min.js",
    "vendor/temml.LICENSE",
    "vendor/temml.min.js",
    "worker.js",
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_file_of_the_folder_is_served() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/serve/page");
        let mut open = vec![folder.clone()];
        let mut missing = Vec::new();
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                continue;
            }
            let name = path.strip_prefix(&folder).unwrap().to_str().unwrap().replace('\\', "/");
            // Sources of the program, types for an editor, and remarks.
            let is_other = [".rs", ".d.ts", ".md"].iter().any(|end| name.ends_with(end));
            if !is_other && !FILES.iter().any(|file| file.path == name) {
                missing.push(name);
            }
        }
        assert!(missing.is_empty(), "add to FILES: {missing:?}");
    }

    #[test]
    fn every_file_that_a_page_names_is_there() {
        for page in ["index.html", "pair.html"] {
            let file = FILES.iter().find(|file| file.path == page).unwrap();
            let text = std::str::from_utf8(file.content).unwrap();
            let mut seen = 0;
            for quoted in text.split('"').filter_map(|part| part.strip_prefix("/page/")) {
                seen += 1;
                assert!(FILES.iter().any(|file| file.path == quoted), "{page} names {quoted}");
            }
            assert!(seen > 1, "{page}");
            // The policy allows neither.
            assert!(!text.contains("<style") && !text.contains(" style=") && !text.contains("<script>"), "{page}");
        }
    }
}
