//! The hub path against a server on this machine that speaks the hub's paths: download, resume, cache, refusals.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use expect_test::expect;

use crate::workbench::{Dwindle, golden};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A hub with one model, `tiny/qwen2`, whose files are those of a folder; `gated/model` is refused.
struct Hub {
    address: String,
    /// Requests for files so far.
    requests: Arc<AtomicUsize>,
}

impl Hub {
    /// Starts it on a free port; the first `cuts` answers of weights end in the middle.
    fn start(folder: PathBuf, cuts: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let left = Arc::new(AtomicUsize::new(cuts));
        let counted = requests.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (folder, counted, left) = (folder.clone(), counted.clone(), left.clone());
                // A client that hangs up early is no concern of the server.
                std::thread::spawn(move || answer(stream, &folder, &counted, &left).ok());
            }
        });
        Hub { address, requests }
    }

    fn command(&self, dwindle: &Dwindle, arguments: &[&str]) -> std::process::Output {
        let mut command = dwindle.command(arguments);
        command.env_remove("HF_HUB_OFFLINE").env("HF_ENDPOINT", &self.address).output().unwrap()
    }
}

fn answer(
    stream: TcpStream,
    folder: &std::path::Path,
    counted: &AtomicUsize,
    cuts: &AtomicUsize,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut range = None;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(asked) = line.strip_prefix("range: bytes=") {
                range = asked.split_once('-').map(|(a, b)| (a.parse::<usize>().unwrap_or(0), b.parse::<usize>().ok()));
            }
        }
        let path = request.split(' ').nth(1).unwrap_or("").to_owned();
        let plain = |stream: &mut TcpStream, status: &str, body: &str| {
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        };
        if path.contains("gated/model") {
            plain(&mut stream, "401 Unauthorized", "")?;
        } else if path.starts_with("/api/models/tiny/qwen2") {
            let names = std::fs::read_dir(folder)?.map(|e| Ok(e?.file_name().to_string_lossy().into_owned()));
            let mut names = names.collect::<std::io::Result<Vec<_>>>()?;
            names.sort();
            let siblings: Vec<_> = names.iter().map(|name| serde_json::json!({ "rfilename": name })).collect();
            plain(&mut stream, "200 OK", &serde_json::json!({ "siblings": siblings, "sha": COMMIT }).to_string())?;
        } else if let Some(name) = path.strip_prefix("/tiny/qwen2/resolve/main/") {
            counted.fetch_add(1, Ordering::SeqCst);
            let bytes = std::fs::read(folder.join(name))?;
            let (start, end) = range.unwrap_or((0, None));
            let end = end.map_or(bytes.len(), |last| (last + 1).min(bytes.len()));
            let part = &bytes[start.min(end)..end];
            write!(
                stream,
                "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {start}-{}/{}\r\nETag: \"{}\"\r\nX-Repo-Commit: {COMMIT}\r\n\r\n",
                part.len(),
                end.max(1) - 1,
                bytes.len(),
                blake3::hash(&bytes).to_hex(),
            )?;
            let cut = part.len() > 1000
                && cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
            if cut {
                stream.write_all(&part[..part.len() / 2])?;
                return stream.shutdown(std::net::Shutdown::Both);
            }
            stream.write_all(part)?;
        } else {
            plain(&mut stream, "404 Not Found", "")?;
        }
    }
}

#[test]
fn a_model_is_downloaded_once_and_taken_up_where_the_connection_broke() {
    let hub = Hub::start(golden("qwen2"), 2);
    let dwindle = Dwindle::new();
    let output = hub.command(&dwindle, &["convert", "tiny/qwen2", "-o", "model"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    dwindle.run(&["convert", &golden("qwen2").display().to_string(), "-o", "local"]);
    let read = |path: &str| std::fs::read(dwindle.path(path)).unwrap();
    assert!(read("model/model.safetensors") == read("local/model.safetensors"), "the download changed the weights");
    assert!(hub.requests.load(Ordering::SeqCst) > 4, "broken connections were taken up again");
    // Without the network, from the cache.
    dwindle.run(&["convert", "tiny/qwen2", "-o", "again"]);
    assert!(read("again/model.safetensors") == read("model/model.safetensors"));
}

#[test]
fn refusals() {
    let hub = Hub::start(golden("qwen2"), 0);
    let dwindle = Dwindle::new();
    let told = |arguments: &[&str]| {
        let output = hub.command(&dwindle, arguments);
        assert_eq!(output.status.code(), Some(3));
        String::from_utf8(output.stderr).unwrap()
    };
    expect![[r#"
        error: the hub refuses access to gated/model: it may be gated or private. Accept its licence on its page, make an access token, and set HF_TOKEN to it
    "#]].assert_eq(&told(&["convert", "gated/model", "-o", "x"]));
    expect![[r#"
        error: the hub has no model tiny/unknown with revision main: check the spelling of both
    "#]]
    .assert_eq(&told(&["convert", "tiny/unknown", "-o", "x"]));
    expect![[r#"
        error: while downloading config.json: the hub has no model tiny/qwen2 with revision v9: check the spelling of both
    "#]].assert_eq(&told(&["convert", "tiny/qwen2", "--revision", "v9", "-o", "x"]));
    assert!(!dwindle.path("x").exists());
}
