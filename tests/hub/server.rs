//! A server that speaks the hub's paths, for tests: listing, files, redirection of large files to a store, and all that can go wrong.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::json;
use sha1::Digest as _;

/// The commit of all models.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// The token that may read `gated/model`.
pub const TOKEN: &str = "hf_right";

/// What goes wrong with an answer.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The connection ends in the middle; the headers promised more.
    Cut,
    /// A status and headers (each with a line end) instead of the answer.
    Status(&'static str, &'static str),
    /// One bit in the middle is another.
    Flip,
    /// The server's file is shorter than listed, and its headers say so.
    Short,
    /// Ranges are ignored.
    NoRanges,
}

/// A hub with the model `tiny/qwen2`, whose files are those of a folder; `gated/model` has the same files for those who have the token,
/// `renamed/model` redirects to it, `private/model` is nobody's business, `bare/model` has nothing to convert.
#[derive(Debug, Clone)]
pub struct Hub {
    /// Of the hub itself.
    pub address: String,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    folder: PathBuf,
    /// Whether the listing tells sizes and hashes.
    tells: bool,
    faults: Mutex<Vec<(String, Fault, usize)>>,
    log: Mutex<Vec<String>>,
    store: String,
}

impl Hub {
    /// Starts it on free ports.
    pub fn start(folder: PathBuf) -> Self {
        Self::start_as(folder, true)
    }

    /// A mirror whose listing tells neither sizes nor hashes; the headers of its files do.
    pub fn start_lean(folder: PathBuf) -> Self {
        Self::start_as(folder, false)
    }

    fn start_as(folder: PathBuf, tells: bool) -> Self {
        let [hub, store] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        // Two servers, though of one host.
        let address = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let (log, faults) = (Mutex::default(), Mutex::default());
        let state = State { folder, tells, faults, log, store: address(&store) };
        let made = Hub { address: address(&hub), state: Arc::new(state) };
        for (listener, is_store) in [(hub, false), (store, true)] {
            let state = made.state.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let state = state.clone();
                    // A client that hangs up early is no concern of the server.
                    std::thread::spawn(move || serve(stream, &state, is_store).ok());
                }
            });
        }
        made
    }

    /// The next `count` answers about `file` (`listing` for the listing) go wrong in this way.
    pub fn fault(&self, file: &str, fault: Fault, count: usize) {
        self.state.faults.lock().unwrap().push((file.to_owned(), fault, count));
    }

    /// What was asked so far: method, path, range.
    pub fn requests(&self) -> Vec<String> {
        self.state.log.lock().unwrap().clone()
    }

    /// What was asked of one file.
    pub fn requests_of(&self, file: &str) -> Vec<String> {
        self.requests().into_iter().filter(|request| request.contains(file)).collect()
    }
}

struct Request {
    method: String,
    path: String,
    /// The first byte that is wanted.
    from: Option<usize>,
    token: Option<String>,
}

fn read_request(reader: &mut impl BufRead) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split(' ').map(str::to_owned);
    let mut request =
        Request { method: words.next().unwrap(), path: words.next().unwrap_or_default(), from: None, token: None };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(": ") else { return Ok(Some(request)) };
        match name.to_ascii_lowercase().as_str() {
            "range" => request.from = value.trim_start_matches("bytes=").trim_end_matches('-').parse().ok(),
            "authorization" => request.token = Some(value.trim_start_matches("Bearer ").to_owned()),
            _ => {}
        }
    }
}

fn serve(mut stream: TcpStream, state: &State, is_store: bool) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(request) = read_request(&mut reader)? {
        let range = request.from.map_or(String::new(), |from| format!(" from {from}"));
        let place = if is_store { "store " } else { "" };
        state.log.lock().unwrap().push(format!("{place}{} {}{range}", request.method, request.path));
        let parts: Vec<&str> = request.path.split(['?', '/']).filter(|part| !part.is_empty()).collect();
        match parts.as_slice() {
            ["stored", file] if is_store => {
                // The store must never see the token.
                let status = request.token.as_ref().map(|_| "400 Bad Request");
                match status {
                    Some(status) => plain(&mut stream, status, "", "")?,
                    None => send_file(&mut stream, state, &request, file)?,
                }
            }
            [.., "renamed", "model", _, _, _] => {
                let location = format!("Location: {}\r\n", request.path.replacen("renamed", "gated", 1));
                plain(&mut stream, "307 Temporary Redirect", &location, "")?;
            }
            ["api", "models", owner, _, "revision", revision, "blobs=true"] => {
                let known = ["main", COMMIT, "refs%2Fpr%2F1"].contains(revision);
                match (take_fault(state, "listing"), *owner) {
                    (Some(Fault::Status(status, headers)), _) => plain(&mut stream, status, headers, "")?,
                    (_, "tiny" | "gated") if known => plain(&mut stream, "200 OK", "", &listing(state)?)?,
                    (_, "bare") => {
                        let body = json!({ "sha": COMMIT, "siblings": [{ "rfilename": "README.md" }] });
                        plain(&mut stream, "200 OK", "", &body.to_string())?;
                    }
                    (_, "odd") => plain(&mut stream, "200 OK", "", "<html>Welcome</html>")?,
                    (_, "tiny") => plain(&mut stream, "404 Not Found", "X-Error-Code: RevisionNotFound\r\n", "")?,
                    _ => plain(&mut stream, "401 Unauthorized", "X-Error-Code: RepoNotFound\r\n", "")?,
                }
            }
            [owner @ ("tiny" | "gated"), "qwen2" | "model", "resolve", COMMIT, file] => {
                if *owner == "gated" && request.token.as_deref() != Some(TOKEN) {
                    plain(&mut stream, "403 Forbidden", "X-Error-Code: GatedRepo\r\n", "")?;
                } else if !state.folder.join(file).is_file() {
                    plain(&mut stream, "404 Not Found", "X-Error-Code: EntryNotFound\r\n", "")?;
                } else if is_large(file) {
                    let bytes = std::fs::read(state.folder.join(file))?;
                    let headers = format!(
                        "Location: {}/stored/{file}\r\nX-Linked-Size: {}\r\nX-Linked-Etag: \"{}\"\r\n",
                        state.store,
                        bytes.len(),
                        sha256(&bytes)
                    );
                    plain(&mut stream, "302 Found", &headers, "")?;
                } else {
                    send_file(&mut stream, state, &request, file)?;
                }
            }
            _ => plain(&mut stream, "404 Not Found", "", "")?,
        }
    }
    Ok(())
}

fn plain(stream: &mut TcpStream, status: &str, headers: &str, body: &str) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
}

fn listing(state: &State) -> std::io::Result<String> {
    let names = std::fs::read_dir(&state.folder)?.map(|e| Ok(e?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<std::io::Result<Vec<_>>>()?;
    names.sort();
    let mut siblings = Vec::new();
    for name in names {
        let bytes = std::fs::read(state.folder.join(&name))?;
        siblings.push(match (state.tells, is_large(&name)) {
            (false, _) => json!({ "rfilename": name }),
            (true, true) => json!({
                "rfilename": name, "size": bytes.len(), "blobId": "0".repeat(40),
                "lfs": { "sha256": sha256(&bytes), "size": bytes.len(), "pointerSize": 134 },
            }),
            (true, false) => json!({ "rfilename": name, "size": bytes.len(), "blobId": git_blob(&bytes) }),
        });
    }
    Ok(json!({ "sha": COMMIT, "siblings": siblings }).to_string())
}

fn send_file(stream: &mut TcpStream, state: &State, request: &Request, file: &str) -> std::io::Result<()> {
    let mut bytes = std::fs::read(state.folder.join(file))?;
    let etag = git_blob(&bytes);
    let fault = match request.method.as_str() {
        "HEAD" => None,
        _ => take_fault(state, file),
    };
    match &fault {
        Some(Fault::Status(status, headers)) => return plain(stream, status, headers, ""),
        Some(Fault::Flip) => {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        Some(Fault::Short) => bytes.truncate(bytes.len() / 2),
        _ => {}
    }
    let total = bytes.len();
    let from = request.from.filter(|_| !matches!(fault, Some(Fault::NoRanges)));
    match from {
        Some(from) if from >= total => {
            let range = format!("Content-Range: bytes */{total}\r\n");
            return plain(stream, "416 Range Not Satisfiable", &range, "");
        }
        Some(from) => {
            write!(stream, "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-{}/{total}\r\n", total - 1)?;
        }
        None => write!(stream, "HTTP/1.1 200 OK\r\n")?,
    }
    let part = &bytes[from.unwrap_or(0)..];
    write!(stream, "Content-Length: {}\r\nETag: \"{etag}\"\r\n\r\n", part.len())?;
    if request.method == "HEAD" {
        return Ok(());
    }
    if matches!(fault, Some(Fault::Cut)) {
        stream.write_all(&part[..part.len() / 2])?;
        return stream.shutdown(Shutdown::Both);
    }
    stream.write_all(part)
}

fn take_fault(state: &State, file: &str) -> Option<Fault> {
    let mut faults = state.faults.lock().unwrap();
    let (_, fault, count) = faults.iter_mut().find(|(name, _, count)| name == file && *count > 0)?;
    *count -= 1;
    Some(fault.clone())
}

fn is_large(file: &str) -> bool {
    Path::new(file).extension().is_some_and(|e| e == "safetensors" || e == "bin")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(bytes: &[u8]) -> String {
    hex(&sha2::Sha256::digest(bytes))
}

fn git_blob(bytes: &[u8]) -> String {
    hex(&sha1::Sha1::new_with_prefix(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize())
}
